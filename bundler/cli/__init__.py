"""The command line: a module for each group of commands; app.py is where they meet."""
