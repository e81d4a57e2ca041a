# The arguments of a program, one a line: print "set VALUE" for a flag, or "unset". The last one counts, as for the
# program itself.
# Variables: flag (with its dashes).

BEGIN { found = "unset" }
index($0, flag "=") == 1 { found = "set " substr($0, length(flag) + 2) }
$0 == flag { found = "set true" }
END { print found }
