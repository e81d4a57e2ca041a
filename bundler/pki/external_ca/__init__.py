"""External CA: CAs imported from files, or certificates signed by the site's own PKI.

certificate_files.py  certificates and keys in the formats that PKI departments deliver
signers.py            who signs in a state directory, decided once
requests.py           keys and certificate requests (PKCS#10)
purposes.py           the purpose of each certificate
csr_files.py          requests, extensions and instructions as files for the signer
import_ca.py          import a CA from files
import_signed.py      import signed certificates
import_report.py      the result of an import, with warnings
"""
