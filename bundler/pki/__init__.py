"""Keys and certificates: what the cluster needs, how it is issued, stored, renewed and rotated.

declarations.py       one declaration for each certificate
issuing.py            create keys and issue certificates; does not access files
key_pairs.py          a key and its certificate as two files
extensions.py         access to extensions by class
chains.py             the issuers of a certificate up to its root
name_constraints.py   name constraints of CAs
certificate_rules.py  requirements on CA and leaf certificates
ca_origins.py         the origin of each CA, and its files in the state directory
pending.py            certificates that a build still waits for
ca_certificates.py    load or create the CAs, and the secrets that exist before any certificate
leaf_certificates.py  load, issue and write the certificates that the CAs sign
cluster_pki.py        the complete PKI of a cluster, loaded or created
kubeconfig.py         kubeconfigs with embedded certificates
user_access.py        kubeconfigs for users, and the administrator's identity as PKCS#12
admin_group.py        the group of the administrator
inventory.py          list certificates and their ends
renew.py              renew certificates before they end
retired.py            certificates of earlier versions
hot_reload.py         which program reloads which file without a restart
rotation.py           replace the CAs and the service account key in stages
rotation_stages.py    the current stage of a rotation
service_account.py    the key that signs service account tokens
endpoints.py          which server presents which certificate
live.py               check the certificates that servers present
external_ca/          request certificates from the site's own PKI, and import them
"""
