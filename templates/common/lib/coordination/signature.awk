# A signature in hexadecimal → its bytes as printf %b reads them, in lines. With form=der the two halves are numbers in
# a DER sequence, as openssl reads them for ECDSA.
function number(hex) {
    while (length(hex) > 2 && substr(hex, 1, 2) == "00") hex = substr(hex, 3)
    if (index("89abcdef", substr(hex, 1, 1))) hex = "00" hex
    return "02" size(hex) hex
}
function size(hex) { return sprintf("%02x", length(hex) / 2) }
function value(digit) { return index("0123456789abcdef", digit) - 1 }
{
    hex = $0
    if (form == "der") {
        half = length(hex) / 2
        hex = number(substr(hex, 1, half)) number(substr(hex, half + 1))
        hex = "30" size(hex) hex
    }
    for (i = 1; i < length(hex); i += 2) {
        byte = value(substr(hex, i, 1)) * 16 + value(substr(hex, i + 1, 1))
        printf "\\0%03o%s", byte, i % 64 == 63 ? "\n" : ""
    }
    print ""
}
