# The state of each token: awk -v now=SECONDS -f spent-tokens.awk RECORD TOKENS
#
# RECORD has lines NODE GENERATION WHY..., TOKENS is tokens.tsv. Printed, a line each:
#   raise NODE GENERATION     the record must have at least this generation
#   valid NODE ID known|new   not spent, not ended; new: the record has nothing about the node
#   ended NODE ID known|new   not spent, and too late to be used
#   spent NODE ID HEARTBEAT   a request used it, when the Node had this heartbeat
#   spent NODE ID any         spent in another way, or before
BEGIN { FS = "\t" }
/^#/ || /^$/ { next }
FNR == NR {
    split($0, part, " ")
    generation[part[1]] = part[2]
    heartbeat[part[1]] = part[3] == "request" ? part[6] : "any"
    next
}
{
    is_known = $1 in generation
    spent = is_known ? generation[$1] + 0 : 0
    revoked = $3 == "-" ? $2 + 0 : $2 - 1
    if (spent < revoked) print "raise", $1, revoked
    if (spent < revoked) spent = revoked
    if ($3 == "-") next
    if (spent > $2 + 0) print "spent", $1, $3, "any"
    else if (spent == $2 + 0) print "spent", $1, $3, heartbeat[$1]
    else print ($4 + 0 > now ? "valid" : "ended"), $1, $3, (is_known ? "known" : "new")
}
