# Rows of checks (name|needs|section|holds|run) on stdin: print the results of the chosen checks.
# Variables: format (table or json), seconds, today (YYYY-MM-DD). Environment: ACCEPTED (names of weak settings),
# CHOSEN, CLUSTER, LINE_ENDS (NAME:DATE, the last day with fixes), NODE, RESULTS (a directory with the files NAME.code,
# NAME.expected and NAME.seen of each check).

# The file's printable text in one line, "; " between the lines, cut after 600 characters.
function one_line(path, line, text) {
    while ((getline line <path) > 0) {
        gsub(/[^ -~]/, "", line)
        if (line ~ /[^ ]/) text = text (text == "" ? "" : "; ") line
    }
    close(path)
    return length(text) > 600 ? substr(text, 1, 600) "..." : text
}

function json(text) {
    gsub(/[^ -~]/, "", text)
    gsub(/[\\"]/, "\\\\&", text)
    return "\"" text "\""
}

BEGIN {
    total_lines = split(ENVIRON["LINE_ENDS"], lines, " ")
    for (i = 1; i <= total_lines; i++) {
        split(lines[i], parts, ":")
        if (parts[2] < today) {
            ended[++total_ended] = parts[1]
            ended_on[total_ended] = parts[2]
        }
    }
}

index(ENVIRON["CHOSEN"], " " $1 " ") == 0 { next }

{
    base = ENVIRON["RESULTS"] "/" $1
    name[++total] = $1
    section[total] = $3
    run[total] = $5
    passed[total] = one_line(base ".code") == "0"
    expected[total] = one_line(base ".expected")
    seen[total] = one_line(base ".seen")
    if (!passed[total]) failed++
}

END { if (format == "json") print_json(); else print_table() }

function print_table(i) {
    for (i = 1; i <= total; i++) {
        if (passed[i]) {
            printf "ok      %-14s %-26s %s\n", section[i], name[i], seen[i]
        } else {
            printf "FAILED  %-14s %s\n", section[i], name[i]
            printf "        expected: %s\n        seen:     %s\n        run:      %s\n", expected[i], seen[i], run[i]
        }
    }
    if (ENVIRON["ACCEPTED"] != "")
        printf "\nThis cluster accepts weak settings: %s (RUNBOOK.md).\n", ENVIRON["ACCEPTED"]
    for (i = 1; i <= total_ended; i++) {
        printf "%s%s (end of life %s)", (i > 1 ? ", " : "\nUpstream no longer maintains "), ended[i], ended_on[i]
    }
    if (total_ended) print " (RUNBOOK.md)."
    outcome = failed ? failed " of " total " checks failed" : "all " total " checks passed"
    printf "\nCluster %s: %s (%s s, from %s).\n", ENVIRON["CLUSTER"], outcome, seconds, ENVIRON["NODE"]
}

function print_json(i, list, accepted, total_accepted, past) {
    printf "{\"format\":\"%s-checks/1\",", mode
    printf "\"cluster\":%s,\"ok\":%s,", json(ENVIRON["CLUSTER"]), (failed ? "false" : "true")
    total_accepted = split(ENVIRON["ACCEPTED"], accepted, " ")
    for (i = 1; i <= total_accepted; i++) list = list (i > 1 ? "," : "") json(accepted[i])
    for (i = 1; i <= total_ended; i++) {
        past = past sprintf("%s{\"name\":%s,\"date\":%s}", (i > 1 ? "," : ""), json(ended[i]), json(ended_on[i]))
    }
    printf "\"node\":%s,\"seconds\":%s,", json(ENVIRON["NODE"]), seconds
    printf "\"accepted\":[%s],\"ended\":[%s],\"checks\":[", list, past
    for (i = 1; i <= total; i++) {
        printf "%s\n {\"name\":%s,\"section\":%s,", (i > 1 ? "," : ""), json(name[i]), json(section[i])
        printf "\"ok\":%s,\"expected\":%s,", (passed[i] ? "true" : "false"), json(expected[i])
        printf "\"seen\":%s,\"look\":%s}", json(seen[i]), json(run[i])
    }
    printf "\n]}\n"
}
