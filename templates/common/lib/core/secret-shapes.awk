# Secrets that are recognized by what they look like. bundler/formats/secret_shapes.py does the same.
# A slash in brackets is \057: busybox takes \/ for two characters.

BEGIN {
    MASK = "[masked]"
    RANDOM_LENGTH = 20
    PIECE_LENGTH = 16
    LONGEST_NAME = 15
}

# Mask what has the shape of a secret, and the passwords in URLs and arguments.
function mask_shapes(line,    i) {
    if (has_shape(line)) for (i = 1; i <= shapes; i++) line = mask_shape(line, i)
    return mask_arguments(mask_user_info(line))
}

function mask_shape(line, i,    done, found, last, fits) {
    while (match_shape(line, i)) {
        found = substr(line, RSTART, RLENGTH)
        if (RSTART > 1) last = substr(line, RSTART - 1, 1)
        fits = RLENGTH >= least && RLENGTH <= most && last !~ /[A-Za-z0-9]/
        done = done substr(line, 1, RSTART - 1) (fits ? MASK : found)
        line = substr(line, RSTART + RLENGTH)
        last = substr(found, length(found))
    }
    return done line
}

function mask_user_info(line,    done, found, start, user, at) {
    while (match(line, /[A-Za-z][A-Za-z0-9+.-]*:\/\/[^\057 \t"'<>?#]*@/)) {
        found = substr(line, RSTART, RLENGTH - 1)
        done = done substr(line, 1, RSTART - 1)
        line = substr(line, RSTART + RLENGTH)
        start = index(found, "://") + 3
        user = substr(found, start)
        found = substr(found, 1, start - 1)
        at = index(user, ":")
        if (at) user = substr(user, 1, at) (at < length(user) ? MASK : "")
        else if (user !~ /^[a-z_.-]*$/ || length(user) > LONGEST_NAME) user = MASK
        done = done found user "@"
    }
    return done line
}

# Mask `-p PASSWORD` of programs that take it, and `-u USER:PASSWORD`.
function mask_arguments(line,    i, start, before, rest, gap, size) {
    for (i = 1; i <= commands; i++) {
        if (!match_command(line, i)) continue
        start = RSTART + RLENGTH - 1
        if (!match_flag(substr(line, start), i)) continue
        before = substr(line, 1, start - 1 + RSTART + RLENGTH - 1)
        rest = substr(line, length(before) + 1)
        match(rest, /^[ ="',]*/)
        gap = substr(rest, 1, RLENGTH)
        rest = substr(rest, RLENGTH + 1)
        size = span(rest, " \t\"',")
        if (size && rest !~ /^-/) line = before gap MASK substr(rest, size + 1)
    }
    if (match_account(line)) {
        before = substr(line, 1, RSTART + RLENGTH - 1)
        rest = substr(line, RSTART + RLENGTH)
        size = span(rest, " \t\"'")
        if (size && substr(rest, 1, size) !~ /^[0-9]+$/) line = before MASK substr(rest, size + 1)
    }
    return line
}

# Mask words that look random, except for digests.
function mask_random(line,    done, run, before, is_value) {
    while (match_run(line)) {
        run = substr(line, RSTART, RLENGTH)
        done = done substr(line, 1, RSTART - 1)
        line = substr(line, RSTART + RLENGTH)
        before = substr(done, length(done) > 8 ? length(done) - 7 : 1)
        is_value = run ~ /==$/ || before ~ /["']$/ || line ~ /^([ \t,]|$)/
        if (ends_before_digest(before) || ends_before_digest(substr(run, 1, 7))) done = done run
        else if (is_random(run) || (is_value && is_padded(run))) done = done MASK
        else done = done run
    }
    return done line
}

# Whether it has lower case, upper case and digits, often alternating. The parts of a path count alone.
function is_random(run,    i, pieces, piece) {
    if (length(run) < RANDOM_LENGTH) return 0
    sub(/=+$/, "", run)
    if (run !~ /^\//) gsub(/\//, "", run)
    pieces = split(run, piece, "/")
    for (i = 1; i <= pieces; i++) if (is_random_piece(piece[i])) return 1
    return 0
}

function is_random_piece(piece,    i, size, character, kind, before, changes) {
    size = length(piece)
    if (size < PIECE_LENGTH || piece !~ /[A-Z]/ || piece !~ /[a-z]/ || piece !~ /[0-9]/) return 0
    for (i = 1; i <= size; i++) {
        character = substr(piece, i, 1)
        kind = character ~ /[a-z]/ ? 1 : character ~ /[A-Z]/ ? 2 : character ~ /[0-9]/ ? 3 : 4
        if (i > 1 && kind != before) changes++
        before = kind
    }
    return changes * 3 >= size
}

# Whether it is base64 that ends with =.
function is_padded(run,    bare) {
    bare = run
    sub(/=+$/, "", bare)
    return length(run) > length(bare) && length(run) - length(bare) <= 2 && length(run) % 4 == 0 &&
        bare ~ /^[A-Za-z0-9+\057]+$/ && bare ~ /[A-Z]/ && bare ~ /[a-z]/ && (run ~ /==$/ || bare ~ /[0-9]/)
}

function is_base64(value) {
    gsub(/^[ \t\r"']+|[ \t\r"']+$/, "", value)
    return length(value) % 4 == 0 && value ~ /^[A-Za-z0-9+\057]+=?=?$/ && value ~ /[A-Z=]/
}

# The number of characters before one of `ends`.
function span(text, ends,    i, size) {
    size = length(text)
    for (i = 1; i <= size; i++) if (index(ends, substr(text, i, 1))) return i - 1
    return size
}
