# MANIFEST.sealed and MANIFEST of the installed generation (both empty if it has none), MANIFEST of a sealed bundle →
# the lines of the bundle's MANIFEST without a seal, as far as they are known without the code. A sealed file whose tag
# is that of the generation's has the same content, if both seals have one key; another has `sealed` instead of its
# digest.
FILENAME == ARGV[1] { if ($2 == "seal-key") key = $3; else if ($2 == "from-seal") tag[$3] = $4; next }
FILENAME == ARGV[2] { if (!/^#/) line[$4] = $0; next }
$1 == "#" && $2 == "seal-key" { is_same_key = $3 == key }
$1 == "#" && $2 == "from-seal" {
    print is_same_key && tag[$3] == $4 && $3 in line ? line[$3] : "sealed 0600 0 " $3
}
!/^#/ && $2 != "0600"
