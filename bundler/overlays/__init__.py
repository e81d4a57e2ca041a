"""Which folders of templates/ a node gets, and how a template is compiled."""
