# `nft list chains` → "input|forward family table chain" of the chains whose policy is to drop.
$1 == "table" { table = $2 " " $3 }
$1 == "chain" { chain = $2 }
!/hook (input|forward) .*policy drop/ { next }
table ~ /^(ip|inet) / && table " " chain !~ /^ip filter (INPUT|FORWARD)$/ {
    print /hook input/ ? "input" : "forward", table, chain
}
