"""File formats that bundler reads and writes.

tar_safety.py        opens every tar archive, with tarsafe and limits
bundle_archives.py   bundles as tar streams, in bounded memory
image_archives.py    images from docker save, OCI archives and directories
image_manifests.py   indices, manifests and configurations of images
image_packages.py    packages that dpkg and apk record inside images
rpm_database.py      packages of rpm's SQLite database
image_references.py  registry, repository, tag and digest
stored_images.py     an image on the builder's disk
chart_packages.py    Helm charts: packages and folders
volumes.py           files that are split into numbered volumes
digests.py           digest algorithms, and hashing of files and streams
program_machine.py   the CPU architecture of a program
safe_parse.py        JSON and URLs from others
bounded_yaml.py      YAML from others, with bounds
yaml_scalars.py      how the scalars of YAML are read
yaml_output.py       YAML for others
client_files.py      CA certificates, client certificates, keys and tokens of a site
shell_settings.py    NAME='VALUE' lines, as in node.env
hidden_text.py       control characters and others that a reviewer does not see
redaction.py         redacts secrets in text, line by line
secret_shapes.py     secrets that are recognized by what they look like
secrets.tsv          the names and shapes of secrets
"""
