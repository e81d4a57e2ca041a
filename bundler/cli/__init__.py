"""The command line: a module for each group of commands. It is the only part that prints or exits.

app.py           the entry point: errors become a message and an exit code
commands.py      the table of all commands
lazy.py          import the module of a command when the command runs
options.py       options that several commands share
media.py         options for the form of bundles: --split, --since and others
carry.py         build the bundles that bring a change of the state to the hosts
check.py         `bundler check`
build.py         `bundler build` and `bundler render`
fetch.py         `bundler fetch` and `bundler lock`
inspect.py       `bundler inspect`
verify.py        `bundler verify`
diff.py          `bundler diff`
plan.py          `bundler plan`
explain.py       `bundler explain`
versions.py      `bundler versions`
keygen.py        `bundler keygen`
admin.py         `bundler admin`
cache.py         `bundler cache`
state.py         `bundler state`
certs.py         `bundler certs list`
certs_live.py    `bundler certs check --live`
certs_renew.py   `bundler certs renew`
certs_rotate.py  `bundler certs rotate`
external_ca.py   `bundler certs request` and `bundler certs import`
"""
