# Members of a JSON object: what the second file has with a higher generation than the first. Lines: NODE GENERATION
# WHY... The first line of the second file is a heading.
FNR == NR { if (NF) generation[$1] = $2; next }
FNR == 1 || !NF || generation[$1] + 0 >= $2 + 0 { next }
{
    node = $1
    value = $0
    sub(/^[^ ]* /, "", value)
    if (value ~ /[^A-Za-z0-9 ._:-]/) value = ($2 + 0) " revoked"
    printf "%s\"%s\": \"%s\"", (n++ ? ", " : ""), node, value
}
