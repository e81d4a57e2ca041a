# `openssl x509 -subject -startdate -enddate` of the certificate in `path` → "END START PATH SUBJECT", tabs between.
# Days since 1970 of a date in the proleptic Gregorian calendar
function days(y, m, d,    era, year, day) {
    if (m <= 2) y--
    era = int(y / 400)
    year = y - era * 400
    day = int((153 * (m + (m > 2 ? -3 : 9)) + 2) / 5) + d - 1 # of a year that begins in March
    return era * 146097 + year * 365 + int(year / 4) - int(year / 100) + day - 719468
}
# "Nov 24 01:40:00 2027 GMT"
function seconds(text,    part, time, month) {
    split(text, part, " ")
    split(part[3], time, ":")
    month = (index("JanFebMarAprMayJunJulAugSepOctNovDec", part[1]) + 2) / 3
    return days(part[4], month, part[2]) * 86400 + time[1] * 3600 + time[2] * 60 + time[3]
}
{ value = $0; sub(/^[^=]*= */, "", value) }
/^subject/ { subject = value }
/^notBefore/ { start = seconds(value) }
/^notAfter/ { end = seconds(value) }
END { printf "%.0f\t%.0f\t%s\t%s\n", end, start, path, subject }
