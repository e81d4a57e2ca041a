# Read the report of one probe pod (output of probe.sh), and print a line for each failed result of one kind.
# Variables: worker (name of the node), kind, wanted (how many successful results there must be).

$1 != kind { next }

$3 == "ok" && NF == 3 { succeeded++; next }

{
    failed++
    target = $2
    $1 = $2 = ""
    print worker " to " target ":" substr($0, 2)
}

END { if (!failed && succeeded + 0 != wanted) print worker ": only " succeeded + 0 " of " wanted " results" }
