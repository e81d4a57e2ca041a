# The Secrets of some tokens: awk -v ids=" ID ID " -f choose-tokens.awk bootstrap-tokens.yaml
function print_chosen() { if (is_chosen) printf "---\n%s", text; text = ""; is_chosen = 0 }
/^---$/ { print_chosen(); next }
/^  name: bootstrap-token-/ { is_chosen = index(ids, " " substr($2, 17) " ") }
{ text = text $0 "\n" }
END { print_chosen() }
