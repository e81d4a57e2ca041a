# Redact secrets in text: PEM blocks, secrets by their names, and by what they look like. Needs secret-patterns.awk
# and secret-shapes.awk. bundler/formats/redaction.py does the same, except for PEM blocks.

BEGIN {
    LONGEST_LINE = 65536
    SPACED_LENGTH = 10
    WORD_ENDS = " \t\"'\\,;&{}()<>[]|"
    below_indent = map_indent = -1
}

# A PEM block may begin and end within a line.
{
    line = $0
    if (in_pem) {
        if (!match(line, /-----END [A-Z0-9 ]*-----/)) next
        line = substr(line, RSTART + RLENGTH)
        in_pem = 0
        if (line == "") next
    }
    done = ""
    while (match(line, /-----BEGIN [A-Z0-9 ]*-----/)) {
        done = done substr(line, 1, RSTART - 1) "[masked: a PEM block]"
        line = substr(line, RSTART + RLENGTH)
        if (!match(line, /-----END [A-Z0-9 ]*-----/)) {
            in_pem = 1
            line = ""
            break
        }
        line = substr(line, RSTART + RLENGTH)
    }
    print redact(done line)
}

function redact(line) {
    if (length(line) > LONGEST_LINE) return "[masked: a line of " length(line) " characters]"
    if (continues(line)) return continued
    return mask_random(mask_names(mask_shapes(line)))
}

# Whether the secret of a line before goes on in this line, or it has nothing to mask: `continued` is the masked line.
function continues(line,    indent, start, is_item, is_value) {
    match(line, /^[ \t]*/)
    indent = RLENGTH
    if (open_quote != "") return continues_quote(line, indent)
    continued = line
    if (indent == length(line)) return 1
    is_item = match(line, /^[ \t]*(- +)+/)
    start = is_item ? RLENGTH : indent
    is_value = is_item_next && is_item && substr(line, start + 1, 1) != "-"
    is_item_next = 0
    if (is_value || is_below(line, indent, start, is_item)) {
        continued = substr(line, 1, start) MASK
        return 1
    }
    return is_entry(line, indent)
}

function continues_quote(line, indent,    end) {
    end = find_end(line, open_quote)
    if (end < 0) continued = substr(line, 1, indent) (indent < length(line) ? MASK : "")
    else {
        open_quote = ""
        continued = MASK substr(line, end + 1)
    }
    return 1
}

# Whether the line belongs to the value of a name above it.
function is_below(line, indent, start, is_item,    is_deeper) {
    if (below_indent < 0) return 0
    if (indent > below_indent && is_block) return 1
    is_deeper = indent > below_indent || (is_item && indent == below_indent)
    if (is_deeper && !is_block && !is_structure(substr(line, start + 1))) return 1
    below_indent = -1
    return 0
}

# Whether the text has a name or a bracket of its own.
function is_structure(text) {
    return text ~ /^["']?[A-Za-z0-9_.\057-]+["']?[ \t]*(:([ \t]|$)|=)/ ||
        (text != "" && index("{}[]#", substr(text, 1, 1)))
}

# An entry of a Secret's `data` or `stringData`.
function is_entry(line, indent,    text, key, value) {
    if (indent <= map_indent) map_indent = -1
    text = substr(line, indent + 1)
    if (map_indent < 0 || !match(text, /^[^ \t:]+:[ \t]*/)) return 0
    key = substr(text, 1, RLENGTH)
    value = substr(text, RLENGTH + 1)
    if (value == "" || (is_map_encoded && !is_base64(value))) return 0
    if (is_block_start(value)) {
        below_indent = indent
        is_block = 1
        continued = line
    } else continued = substr(line, 1, indent) key MASK
    return 1
}

# A name, and what is between it and its value.
function match_name(text) {
    return match(text, /[A-Za-z_][A-Za-z0-9_.-]*\\*["']?[ \t]*(=>|:=|[:=>,])?[ \t]*([!&][A-Za-z!][^ \t]*[ \t]+)?/)
}

function is_line_start(text) { return text ~ /^[ \t]*(- +)*((export|set|setenv|ENV|declare -x) +)?["']?$/ }

function is_block_start(text) { return text ~ /^[|>][-+0-9]*[ \t]*(#.*)?$/ }

function mask_names(line,    low, done, before, name, gap, scope) {
    low = tolower(line)
    gsub(/[_.]/, "-", low)
    if (!is_named && !has_name(low)) return line
    while (match_name(line)) {
        name = substr(line, RSTART, RLENGTH)
        before = done substr(line, 1, RSTART - 1)
        line = substr(line, RSTART + RLENGTH)
        done = before name
        match(name, /^[A-Za-z0-9_.-]+/)
        gap = substr(name, RLENGTH + 1)
        name = substr(name, 1, RLENGTH)
        scope = find_scope(before, name, gap, line)
        if (scope == "") continue
        done = done take_value(before, name, gap, scope, line)
        line = taken_rest
    }
    return done line
}

# How much after the name is secret: `line`, `word`, `query`, or nothing.
function find_scope(before, name, gap, after,    words, is_assigned, scope) {
    words = split_words(name)
    is_assigned = gap ~ /[:=]/
    if (is_assigned && words ~ /^(name|value|data|string-data)$/) return follow(words, before, after)
    if (is_assigned && before ~ /([?&;]|&amp;)$/ && is_query_name(words)) return "query"
    # a part of a path, or `Kind=Secret: error`
    if (before ~ /\/$/ || (before ~ /=$/ && gap ~ /^:[ \t]/)) return ""
    scope = classify(words)
    if (is_assigned || scope == "") return scope
    if (index(gap, ">")) return before ~ /<$/ ? scope : ""
    return find_spaced_scope(before, gap, scope, after)
}

# The same for names that say what follows: `name: DB_PASS`, then `value:`; `data:`.
function follow(words, before, after) {
    if (words == "name") {
        sub(/^[\\"']+/, "", after)
        is_named = match(after, /^[A-Za-z_][A-Za-z0-9_.-]*/) && classify(split_words(substr(after, 1, RLENGTH))) != ""
    } else if (words == "value") {
        if (!is_named) return ""
        is_named = 0
        return "line"
    } else if (after ~ /^[ \t{]*$/) {
        match(before, /^[ \t"']*/)
        map_indent = RLENGTH
        is_map_encoded = words == "data"
    }
    return ""
}

function classify(words) {
    if (is_plain_name(words)) return ""
    return is_line_name(words) ? "line" : is_word_name(words) ? "word" : ""
}

# The same where no : or = is between name and value.
function find_spaced_scope(before, gap, scope, after,    is_flag) {
    is_flag = before ~ /-$/
    if (after == "") {
        is_item_next = is_flag && before ~ /^[ \t]*(- +)+/
        return ""
    }
    if (is_flag) return gap ~ /[ \t,]/ && after !~ /^-/ ? scope : ""
    if (gap ~ /,/ || gap !~ /[ \t]/) return ""
    if (scope == "line" && (after ~ /^["']/ || (is_line_start(before) && after ~ /^[^ \t;{}]+;?$/) ||
        before ~ /login[ \t]+[^ \t]+[ \t]+$/)) return scope
    if (match(after, /^[A-Za-z0-9+\057=_]+/) && RLENGTH >= SPACED_LENGTH && substr(after, 1, RLENGTH) ~ /[0-9]/ &&
        substr(after, RLENGTH + 1) ~ /^([ \t"',;]|$)/) return "word"
    return ""
}

# Return the masked value; `taken_rest` is the rest of the line after it.
function take_value(before, name, gap, scope, after,    is_start, is_mapping, end) {
    is_start = is_line_start(before)
    is_mapping = is_start && index(gap, ":")
    taken_rest = ""
    if (match(after, /^\\*["']/)) return take_quoted(after, substr(after, 1, RLENGTH), name, scope, is_start)
    if (is_mapping && (is_block_start(after) || after ~ /^(\[|#.*)?$/)) {
        below_indent = column(before)
        is_block = is_block_start(after)
        return after
    }
    if (after ~ /^(\{|\[\{|\[masked\])/ && after !~ /^\{\{/) {
        taken_rest = after
        return ""
    }
    end = find_value_end(before, gap, scope, after, is_start)
    if (is_mapping && end == length(after)) {
        below_indent = column(before)
        is_block = 0
    }
    taken_rest = substr(after, end + 1)
    return hide(substr(after, 1, end), name, scope)
}

function take_quoted(after, opening, name, scope, is_start,    inner, end, hidden) {
    inner = substr(after, length(opening) + 1)
    end = find_end(inner, opening)
    if (end < 0) {
        if (is_start) open_quote = opening
        return opening hide(inner, name, scope)
    }
    hidden = hide(substr(inner, 1, end), name, scope)
    taken_rest = substr(inner, end + length(opening) + 1)
    if (hidden ~ /\[masked\]$/) taken_rest = substr(taken_rest, span(taken_rest, " \t,;:)}]<>&|\\\"'") + 1)
    return opening hidden opening
}

# Mask a value, except for the scheme of an Authorization header and plain values.
function hide(value, name, scope,    bare, at, scheme) {
    bare = value
    gsub(/^[ \t\r,;]+|[ \t\r,;]+$/, "", bare)
    if (bare == "" || index(bare, MASK) || is_plain_value(tolower(bare))) return value
    if (scope != "line" && (is_number(bare) || (bare ~ /^(\/[A-Za-z0-9_.*-]*)+$/ && !is_random(bare)))) return value
    at = index(value, " ")
    scheme = tolower(substr(value, 1, at - 1))
    if (split_words(name) ~ /authorization$/ && at && substr(value, at + 1) ~ /[^ ]/ && is_scheme(scheme))
        return substr(value, 1, at) MASK
    return MASK
}

# Whether it is a number of at most five digits, or a duration.
function is_number(text) {
    return text ~ /^([0-9]?[0-9]?[0-9]?[0-9]?[0-9]?|[0-9.]+(ns|us|ms|s|m|h|d)([0-9]+[msh])*)$/
}

# dbPass, DB_PASS and db.pass as db-pass.
function split_words(name,    i, size, character, before, words) {
    sub(/[.-]+$/, "", name)
    size = length(name)
    for (i = 1; i <= size; i++) {
        character = substr(name, i, 1)
        if (character ~ /[A-Z]/ && (before ~ /[a-z0-9]/ || (before ~ /[A-Z]/ && substr(name, i + 1, 1) ~ /[a-z]/)))
            words = words "-"
        words = words character
        before = character
    }
    gsub(/[_.]/, "-", words)
    return tolower(words)
}

function column(before) {
    sub(/["']+$/, "", before)
    return length(before)
}

# Where the value ends that is not in quotes.
function find_value_end(before, gap, scope, after, is_start,    quote, text, end) {
    quote = before ~ /["']$/ && gap !~ /^\\*["']/ ? substr(before, length(before)) : ""
    text = before
    if (quote == "" && scope == "line" && !is_start && gsub(/"/, "", text) % 2) quote = "\""
    if (scope == "query") return span(after, "&\"'<> \t#;")
    if (quote != "") {
        end = find_end(after, quote)
        return end < 0 ? length(after) : end
    }
    if (index(gap, ">") && !index(gap, "=")) return span(after, "<")
    if (after ~ /^\[/) return span(after, "]")
    if (is_start || (scope == "line" && gap ~ /[:=][ \t]+$/)) return length(after)
    return scope == "line" ? find_word_end(after) : span(after, WORD_ENDS)
}

# How many characters are before the closing quote, which has as many backslashes as the opening one; -1 without one.
function find_end(text, quote,    i, size, mark, slashes) {
    size = length(text)
    mark = substr(quote, length(quote))
    for (i = 1; i <= size; i++) {
        if (substr(text, i, 1) == "\\") {
            slashes++
            continue
        }
        if (substr(text, i, 1) == mark) {
            if (quote == "'" && substr(text, i + 1, 1) == "'") i++ # '' is a quote in YAML and SQL
            else if (slashes + 0 == length(quote) - 1 || (quote == "'" && slashes)) return i - length(quote)
        }
        slashes = 0
    }
    return -1
}

# The end of a word of a shell, which may have quoted parts and escaped blanks.
function find_word_end(text,    i, size, character, quote) {
    size = length(text)
    for (i = 1; i <= size; i++) {
        character = substr(text, i, 1)
        if (character == "\\") i++
        else if (quote != "") {
            if (character == quote) quote = ""
        } else if (index("\"'", character) && index(substr(text, i + 1), character)) quote = character
        else if (index(" \t&<>\"'", character)) return i - 1
    }
    return size
}
