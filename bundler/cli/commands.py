"""The table of all commands. The functions are imported only when their command runs.

The help text of a row is the first sentence of its function's docstring.
"""

from bundler.cli.lazy import CommandRow, GroupRow

COMMANDS: dict[str, CommandRow | GroupRow] = {
    "help": CommandRow(
        target="help:help_command",
        help="Show everything about a command; --help shows at most 60 lines.",
        examples=("bundler help build", "bundler help certs renew"),
    ),
    "init": CommandRow(
        target="init:init_command",
        help="Write a first cluster.yaml, with comments; on a terminal it asks what to write.",
        examples=(
            "bundler init",
            "bundler init --control-plane 192.0.2.10",
            "bundler init --control-plane 192.0.2.11 --worker 192.0.2.21 --os rocky-9",
            "bundler init --example production",
        ),
    ),
    "schema": CommandRow(
        target="schema:schema_command",
        help="Print the JSON Schema of cluster.yaml, with which editors complete and check it.",
        examples=("bundler schema > bundler.schema.json",),
    ),
    "check": CommandRow(
        target="check:check_command",
        help="Validate cluster.yaml, its images and its pins, without writing anything.",
        examples=("bundler check", "bundler check -c sites/lab.yaml"),
    ),
    "show": CommandRow(
        target="show:show_command",
        help="Show everything that holds for one node, each value with the file and line it comes"
        " from.",
        examples=("bundler show worker1", "bundler show worker1 -c sites/lab.yaml --json"),
    ),
    "images": CommandRow(
        target="images:images_command",
        help="List every image that the bundles carry, and the place that it comes from.",
        examples=("bundler images", "bundler images --why nginx:1.27"),
    ),
    "lock": CommandRow(
        target="fetch:lock_command",
        help="Write cluster.lock.yaml: the URL, size and digest of every file that a build takes.",
        examples=(
            "bundler lock -c cluster.yaml",
            "bundler lock --update etcd",
            "bundler lock --update all --dry-run",
        ),
    ),
    "fetch": CommandRow(
        target="fetch:fetch_command",
        help="Download every file that cluster.yaml needs into the cache.",
        examples=(
            "bundler fetch -c cluster.yaml",
            "bundler fetch --mirror https://mirror.example/files --ca-file ca.pem",
        ),
    ),
    "build": CommandRow(
        target="build:build_command",
        help="Build one tarball per node, and SHA256SUMS.",
        examples=(
            "bundler build -c cluster.yaml -o dist/",
            "bundler build --dry-run",
            "bundler build -o dist/ --layout split --split 4.4G --sign release.key",
            "bundler build -o delta/ --since dist/",
            "bundler build -o dist/ --seal",
            "bundler build -o dist/ --seal-to worker1=worker1.crt",
        ),
    ),
    "render": CommandRow(
        target="build:render_command",
        help="Write the contents of the bundles as plain files, for review and diff.",
        examples=("bundler render -o trees/ --text-only",),
    ),
    "keygen": CommandRow(
        target="keygen:keygen_command",
        help="Create a key that signs bundles (ECDSA P-256).",
        examples=("bundler keygen release.key", "bundler build --sign release.key"),
    ),
    "verify": CommandRow(
        target="verify:verify_command",
        help="Check the bundles of a directory against SHA256SUMS and manifests.",
        examples=(
            "bundler verify dist/",
            "bundler verify dist/ --trust release.key.pub",
            "bundler verify dist/ --public public/",
        ),
    ),
    "inspect": CommandRow(
        target="inspect:inspect_command",
        help="Show the contents of a bundle, after checking every file against its manifest.",
        examples=(
            "bundler inspect dist/lab-master1.tar.gz",
            "bundler inspect dist/lab-master1.tar.gz --sbom > sbom.json",
        ),
    ),
    "audit": CommandRow(
        target="audit:audit_command",
        help="Compare bundles, or cluster.yaml, with known vulnerabilities; needs no network.",
        examples=(
            "bundler audit dist/",
            "bundler audit -c cluster.yaml --fail-on high",
            "bundler audit dist/ --db osv-go.zip --db debian.json --json",
            "bundler audit dist/ --vex dist.openvex.json",
        ),
    ),
    "diff": CommandRow(
        target="diff:diff_command",
        help="Show the differences between two bundles, or two directories of bundles.",
        examples=("bundler diff old/ new/", "bundler diff --text old/ new/"),
    ),
    "plan": CommandRow(
        target="plan:plan_command",
        help="Show what an upgrade from OLD to NEW changes on each host, in rollout order.",
        examples=("bundler plan old/ new/", "bundler plan --files --json old/ new/"),
    ),
    "explain": CommandRow(
        target="explain:explain_command",
        help="Explain a key of cluster.yaml, or the flags that bundler gives a component.",
        examples=(
            "bundler explain nodes.roles",
            "bundler explain kubelet --version 1.36",
        ),
    ),
    "versions": CommandRow(
        target="versions:versions_command",
        help="List the versions that have built-in pins.",
        examples=("bundler versions", "bundler versions etcd"),
    ),
    "addon": GroupRow(
        help="Add-ons: known ones, and bundles with one for a cluster that exists.",
        commands={
            "list": CommandRow(
                target="known_addons:list_command",
                help="List add-ons that were rendered with bundler, and their versions.",
                examples=("bundler addon list --kubernetes 1.36",),
            ),
            "show": CommandRow(
                target="known_addons:show_command",
                help="Print what to write into cluster.yaml for a known add-on.",
                examples=(
                    "bundler addon show cert-manager --kubernetes 1.36",
                    "bundler addon show kube-prometheus --json",
                ),
            ),
            "bundle": CommandRow(
                target="addon_bundle:bundle_command",
                help="Bundle one add-on and its images for a cluster that exists.",
                examples=(
                    "bundler addon bundle web --since dist/ -o web/",
                    "bundler addon bundle web --since dist/ -o web/ --layout split",
                ),
            ),
        },
    ),
    "certs": GroupRow(
        help="Certificates: list, check, renew and rotate them, or have an external CA sign them.",
        commands={
            "list": CommandRow(
                target="certs_list:list_command",
                help="List every certificate with its end and its issuer.",
                examples=("bundler certs list --warn 60d", "bundler certs list lab-m1.tar.gz"),
            ),
            "check": CommandRow(
                target="certs_check:check_command",
                help="Connect to the servers of the cluster and check their certificates.",
                examples=(
                    "bundler certs check --live",
                    "bundler certs check --live master1:6443 --ca ca.pem --warn 30d",
                ),
            ),
            "renew": CommandRow(
                target="certs_renew:renew_command",
                help="Renew certificates, with new keys.",
                examples=(
                    "bundler certs renew --expiring 90d --dry-run",
                    "bundler certs renew --expiring 90d --since dist/ -o renewal/",
                ),
            ),
            "rotate": CommandRow(
                target="certs_rotate:rotate_command",
                help="Replace the CAs and the service account key in three stages, without"
                " downtime.",
                examples=(
                    "bundler certs rotate",
                    "bundler certs rotate trust --since dist/ -o trust/",
                ),
            ),
            "request": CommandRow(
                target="external_ca:request_command",
                help="Write certificate signing requests (CSRs) for an external CA.",
                examples=(
                    "bundler certs request -o requests/",
                    "bundler certs request --leaves -o requests/",
                ),
            ),
            "import": CommandRow(
                target="external_ca:import_command",
                help="Import certificates that an external CA signed, or a CA with its key.",
                examples=(
                    "bundler certs import signed/ --root root.crt",
                    "bundler certs import --authority etcd-ca --cert ca.crt --key ca.key",
                ),
            ),
        },
    ),
    "seal": GroupRow(
        help="Sealed bundles (bundler build --seal): their unseal codes.",
        commands={
            "renew": CommandRow(
                target="seal:renew_command",
                help="Replace unseal codes, because somebody else saw them.",
                examples=("bundler seal renew worker1", "bundler seal renew --all"),
            ),
        },
    ),
    "admin": GroupRow(
        help="Access for people: kubeconfigs for more users, and the administrator's certificate.",
        commands={
            "create": CommandRow(
                target="admin:create_command",
                help="Create a kubeconfig with a client certificate for a user.",
                examples=(
                    "bundler admin create --name alice --group dev --days 30",
                    "bundler admin create --name repair --break-glass --days 1",
                ),
            ),
            "revoke": CommandRow(
                target="admin:revoke_command",
                help="Make every copy of admin.kubeconfig worthless, with a new one for the control"
                " planes.",
                examples=("bundler admin revoke --since dist/ -o revoked/",),
            ),
            "export": CommandRow(
                target="admin:export_command",
                help="Export the administrator's certificate and key as PKCS#12.",
                examples=("bundler admin export --p12 admin.p12",),
            ),
        },
    ),
    "tokens": GroupRow(
        help="Bootstrap tokens, with which the kubelets of workers join once.",
        commands={
            "renew": CommandRow(
                target="tokens:renew_command",
                help="Give workers new bootstrap tokens, and revoke their former ones.",
                examples=(
                    "bundler tokens renew worker1",
                    "bundler tokens renew --all --dry-run",
                    "bundler tokens renew --all --since dist/ -o renewal/",
                ),
            ),
        },
    ),
    "secrets": GroupRow(
        help="The key that encrypts Secrets in etcd.",
        commands={
            "rotate": CommandRow(
                target="secrets_rotate:rotate_command",
                help="Replace the key that encrypts Secrets in etcd, in three stages, without"
                " downtime.",
                examples=(
                    "bundler secrets rotate",
                    "bundler secrets rotate read --since dist/ -o read/",
                ),
            ),
        },
    ),
    "state": GroupRow(
        help="The state directory (keys, certificates, tokens): back it up, encrypted.",
        commands={
            "export": CommandRow(
                target="state:export_command",
                help="Write the state directory into one file, encrypted with a passphrase.",
                examples=("bundler state export -o lab.state.enc",),
            ),
            "import": CommandRow(
                target="state:import_command",
                help="Restore the state directory from an exported file.",
                examples=("bundler state import lab.state.enc",),
            ),
        },
    ),
    "cache": GroupRow(
        help="The cache of downloaded files: list, verify, export, import and prune it.",
        commands={
            "list": CommandRow(
                target="cache:list_command",
                help="List every file with its size, digest and name.",
            ),
            "verify": CommandRow(
                target="cache:verify_command",
                help="Read every file again and quarantine those that were altered.",
            ),
            "export": CommandRow(
                target="cache:export_command",
                help="Write files into one tar archive, for a builder without a network.",
                examples=("bundler cache export files.tar -c cluster.yaml",),
            ),
            "import": CommandRow(
                target="cache:import_command",
                help="Import the files of an exported archive, after checking each digest.",
                examples=("bundler cache import files.tar",),
            ),
            "prune": CommandRow(
                target="cache:prune_command",
                help="Delete every file that no given cluster.yaml needs.",
                examples=("bundler cache prune -c cluster.yaml --dry-run",),
            ),
        },
    ),
}

PANELS: dict[str, tuple[str, ...]] = {
    "Describe a cluster": ("init", "check", "show", "images", "explain", "schema", "versions"),
    "Build": ("lock", "fetch", "build", "addon", "render", "keygen", "verify", "inspect"),
    "Compare": ("diff", "plan", "audit"),
    "Keys and access": ("certs", "admin", "tokens", "secrets", "seal", "state"),
    "More": ("cache", "help"),
}
"""Panel of `bundler --help` → its commands."""
