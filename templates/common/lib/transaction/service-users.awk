# "passwd|group LINE" of the host's accounts → what is wrong with the users of units. `wanted` has NAME:ID words.
#
#   missing user|group NAME ID           neither the name nor the number is there
#   wrong user|group NAME ID NUMBERS     the name has other numbers: UID:GID, or GID
#   taken user|group NAME ID HOLDER      the number has another name
{
    database = $1
    sub(/^[^ ]* /, "")
    split($0, field, ":")
    number[database, field[1]] = database == "passwd" ? field[3] ":" field[4] : field[3]
    if (!((database, field[3]) in holder)) holder[database, field[3]] = field[1]
}
END {
    n = split(wanted, pair, " ")
    for (i = 1; i <= n; i++) {
        split(pair[i], part, ":")
        judge("group", "group", part[1], part[2], part[2])
        judge("user", "passwd", part[1], part[2], part[2] ":" part[2])
    }
}

function judge(kind, database, name, id, numbers) {
    if ((database, name) in number) {
        if (number[database, name] != numbers) print "wrong", kind, name, id, number[database, name]
    } else if ((database, id) in holder) {
        print "taken", kind, name, id, holder[database, id]
    } else {
        print "missing", kind, name, id
    }
}
