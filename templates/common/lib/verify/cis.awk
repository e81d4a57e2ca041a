# First file: what was seen ("NUMBER set VALUE", "NUMBER unset", "NUMBER unknown REASON", separated by tabs; several
# lines of a number are several flags or files). Second file: cis.tsv. Print the results; exit 1 if a check failed.
# Variables: format (table or json), seconds. Environment: ACCEPTED, CLUSTER, NODE, ONLY (ids between spaces, or empty).

function json(text) {
    gsub(/[^ -~]/, "", text)
    gsub(/[\\"]/, "\\\\&", text)
    return "\"" text "\""
}

# The rule in words, as bundler/cluster/cis.py has it.
function describe(rule, value, base, words) {
    base = rule
    sub(/-if-set$/, "", base)
    gsub(/,/, ", ", value)
    words = WORDS[base]
    sub(/VALUE/, value, words)
    return words (base == rule ? "" : ", or not set")
}

function octal(text, i, sum) {
    for (i = 1; i <= length(text); i++) sum = sum * 8 + substr(text, i, 1)
    return sum
}

# Whether every permission in one mode is in the other: bit by bit, for awks without and().
function is_within(mode, most, a, b) {
    a = octal(mode)
    b = octal(most)
    for (; a > 0; a = int(a / 2)) {
        if (a % 2 && !(b % 2)) return 0
        b = int(b / 2)
    }
    return 1
}

function is_among(word, list, items, i, count) {
    count = split(list, items, ",")
    for (i = 1; i <= count; i++) if (items[i] == word) return 1
    return 0
}

function are_all_among(words, list, items, i, count) {
    count = split(words, items, ",")
    for (i = 1; i <= count; i++) if (!is_among(items[i], list)) return 0
    return count > 0
}

# Whether what is seen meets the rule: as `meets` in bundler/cluster/cis.py.
function meets(rule, value, state, seen, base) {
    base = rule
    sub(/-if-set$/, "", base)
    if (state == "unset") return base != rule || base == "unset"
    if (base == "set") return seen != ""
    if (base == "unset") return 0
    if (base == "is") return seen == value
    if (base == "not") return seen != value && seen != value "s"
    if (base == "has") return index(seen, value) > 0
    if (base == "without") return index(seen, value) == 0
    if (base == "at-least") return seen ~ /^-?[0-9]+$/ && seen + 0 >= value + 0
    if (base == "at-most") return is_within(seen, value)
    if (base == "one-of") return is_among(seen, value)
    if (base == "only") return are_all_among(seen, value)
    return 0
}

BEGIN {
    PERSON = "a person decides"
    WORDS["set"] = "set"
    WORDS["unset"] = "not set"
    WORDS["is"] = "VALUE"
    WORDS["not"] = "not VALUE"
    WORDS["has"] = "with VALUE"
    WORDS["without"] = "without VALUE"
    WORDS["at-least"] = "at least VALUE"
    WORDS["at-most"] = "at most VALUE"
    WORDS["one-of"] = "one of VALUE"
    WORDS["only"] = "only VALUE"
}

FNR == NR {
    lines[$1] = lines[$1] + 1
    state[$1, lines[$1]] = $2
    found[$1, lines[$1]] = $3
    next
}

ENVIRON["ONLY"] ~ /[^ ]/ && index(ENVIRON["ONLY"], " " $1 " ") == 0 { next }

{
    total++
    id[total] = $1
    stig[total] = $2
    section[total] = $4
    title[total] = $5
    note[total] = $11
    expected[total] = $9 == "" ? PERSON : $6 == "argument" || $6 == "setting" ? \
        $7 " " first_word($8) ": " describe($9, $10) : $7 ": " describe($9, $10)
    verdict[total] = judge(FNR, $6, $9, $10)
    if ($9 == "" || (verdict[total] == "FAIL" && $3 != "automated")) verdict[total] = $3 == "no" ? "no" : "manual"
    seen[total] = shown
    counts[verdict[total]]++
}

function first_word(words) {
    sub(/ .*/, "", words)
    return words
}

# Sets `shown` to what was seen: everything that does not meet the rule, or the first that does.
function judge(number, kind, rule, value, i, text, what, is_bad, bad) {
    shown = ""
    for (i = 1; i <= lines[number]; i++) {
        text = found[number, i]
        what = text
        if (kind ~ /^(mode|owner|owner-tree)$/ && state[number, i] == "set") sub(/ .*/, "", what)
        is_bad = state[number, i] == "unknown" || !meets(rule, value, state[number, i], what)
        if (text == "") text = "not set"
        if (is_bad && bad++ < 3) shown = bad == 1 ? text : shown "; " text
        if (!is_bad && !bad && shown == "") shown = text
    }
    if (bad > 3) shown = shown "; and " bad - 3 " more"
    return bad || !lines[number] ? "FAIL" : "PASS"
}

END {
    if (format == "json") print_json()
    else print_table()
    exit counts["FAIL"] > 0
}

function print_table(i) {
    for (i = 1; i <= total; i++) {
        printf "%-7s %-9s %s%s\n", verdict[i], id[i], title[i], \
            (stig[i] == "" || stig[i] == id[i] ? "" : " (" stig[i] ")")
        if (verdict[i] == "PASS") continue
        if (expected[i] != PERSON) {
            printf "        expected: %s\n", expected[i]
            printf "        seen:     %s\n", (seen[i] == "" ? "nothing" : seen[i])
        }
        printf "        %s %s\n", (verdict[i] == "no" ? "reason:  " : "look at: "), note[i]
    }
    printf "\nCluster %s, %s: %d PASS, %d FAIL, %d manual, %d cannot hold (%s s).\n", ENVIRON["CLUSTER"], \
        ENVIRON["NODE"], counts["PASS"], counts["FAIL"], counts["manual"], counts["no"], seconds
}

function print_json(i) {
    printf "{\"format\":\"cis-checks/1\",\"cluster\":%s,", json(ENVIRON["CLUSTER"])
    printf "\"ok\":%s,", (counts["FAIL"] ? "false" : "true")
    printf "\"node\":%s,\"seconds\":%s,", json(ENVIRON["NODE"]), seconds
    printf "\"accepted\":[%s],\"ended\":[],\"checks\":[", list_words(ENVIRON["ACCEPTED"])
    for (i = 1; i <= total; i++) {
        printf "%s\n {\"name\":%s,\"section\":%s,", (i > 1 ? "," : ""), json(id[i]), json(section[i])
        printf "\"ok\":%s,\"expected\":%s,", (verdict[i] == "FAIL" ? "false" : "true"), json(expected[i])
        printf "\"seen\":%s,\"look\":%s,", json(seen[i]), json(note[i])
        printf "\"title\":%s,\"stig\":[%s],\"verdict\":%s}", json(title[i]), list_words(stig[i]), json(verdict[i])
    }
    printf "\n]}\n"
}

function list_words(text, words, i, count, list) {
    count = split(text, words, " ")
    for (i = 1; i <= count; i++) list = list (i > 1 ? "," : "") json(words[i])
    return list
}
