# decode(TEXT): the text that TEXT is in base64 or base64url, up to the first byte that is not printable ASCII.
function decode(text,   i, n, bits, value, byte, out) {
    gsub(/-/, "+", text)
    gsub(/_/, "/", text)
    for (i = 1; i <= length(text); i++) {
        n = index("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", substr(text, i, 1))
        if (n == 0) return out
        value = value * 64 + n - 1
        bits += 6
        if (bits < 8) continue
        bits -= 8
        byte = int(value / 2 ^ bits)
        value -= byte * 2 ^ bits
        if (byte < 32 || byte > 126) return out
        out = out sprintf("%c", byte)
    }
    return out
}
