"""The command line. Each command's module is imported when the command runs.

app.py             the entry point: errors become a message and an exit code
commands.py        the table of all commands, with help and examples
lazy.py            commands that are imported when they run
complete.py        what the shell offers after Tab
panels.py          the layout of help
help.py            bundler help
options.py         options that several commands share
json_output.py     JSON for other programs, versioned
media.py           options for the form of the bundles
state_change.py    change the state and build the bundles for the change
init.py            bundler init
schema.py          bundler schema
check.py           bundler check
show.py            bundler show
images.py          bundler images
known_addons.py    bundler addon list, show
addon_bundle.py    bundler addon bundle
fetch.py           bundler fetch, bundler lock
build.py           bundler build, bundler render
keygen.py          bundler keygen
verify.py          bundler verify
inspect.py         bundler inspect
audit.py           bundler audit
diff.py            bundler diff
plan.py            bundler plan
explain.py         bundler explain
versions.py        bundler versions
cache.py           bundler cache ...
state.py           bundler state ...
admin.py           bundler admin ...
certs_list.py      bundler certs list
certs_check.py     bundler certs check
certs_renew.py     bundler certs renew
certs_rotate.py    bundler certs rotate
rotation.py        what the rotation commands share
secrets_rotate.py  bundler secrets rotate
tokens.py          bundler tokens renew
seal.py            bundler seal renew
external_ca.py     bundler certs request, bundler certs import
"""
