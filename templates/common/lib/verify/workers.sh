# Checks of the workers: registration and kubelets.
# shellcheck shell=sh disable=SC2034,SC2153,SC2154 # verify.sh and its parts share their variables

check_nodes_ready() {
    expect "exactly the planned nodes, all Ready and under no pressure: $(planned_names worker | tr '\n' ' ')"
    found=$(kube get nodes -o go-template='{{range .items}}{{.metadata.name}} {{range .status.addresses}}{{if eq .type "InternalIP"}}{{.address}}{{end}}{{end}} {{range .status.conditions}}{{if eq .type "Ready"}}{{.status}}{{end}}{{end}} {{range .status.conditions}}{{if and (ne .type "Ready") (eq .status "True")}}{{.type}},{{end}}{{end}}{{"\n"}}{{end}}' 2>&1) ||
        { saw "$found"; return 1; }
    problems=$(
        planned worker | while read -r name address; do
            case $(printf '%s\n' "$found" | grep "^$name ") in
                "$name $address True ") ;;
                "") printf '%s is not registered\n' "$name" ;;
                "$name $address True "*) printf '%s has %s: it takes no pods\n' "$name" "$(printf '%s\n' "$found" | sed -n "s/^$name .* \\(.*\\),\$/\\1/p")" ;;
                *" True "*) printf '%s is Ready, but not with its planned address %s\n' "$name" "$address" ;;
                *) printf '%s is not Ready\n' "$name" ;;
            esac
        done
        for name in $(printf '%s\n' "$found" | cut -d' ' -f1); do
            planned_names worker | grep -qx -F "$name" || printf '%s is registered, but not planned\n' "$name"
        done
    )
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "$(planned worker | count_lines) nodes Ready"
}

check_kubelet_certificates() {
    expect "no pending serving certificate, and TLS that verifies against $pki/ca.crt on every worker"
    # shellcheck disable=SC2016 # the dollars are the template's
    requests=$(kube get csr -o go-template='{{range .items}}{{$pending := true}}{{with .status}}{{with .conditions}}{{$pending = false}}{{end}}{{end}}{{if $pending}}{{.metadata.name}} {{.spec.username}} {{with .spec.signerName}}{{.}}{{else}}{{range .spec.usages}}{{if eq . "server auth"}}kubernetes.io/kubelet-serving{{end}}{{end}}{{end}}{{"\n"}}{{end}}{{end}}' 2>&1) ||
        { saw "$requests"; return 1; }
    # shellcheck disable=SC2046 # a list of words
    problems=$(
        printf '%s\n' "$requests" | while read -r name requester signer; do
            [ "$signer" = kubernetes.io/kubelet-serving ] || continue
            planned_names worker | grep -qx -F "${requester#system:node:}" &&
                printf 'the request %s of %s is pending\n' "$name" "$requester"
        done
        for_each 8 probe_kubelet_certificate $(planned worker | tr ' ' '|')
    )
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "$(planned worker | count_lines) certificates verified"
}

# Any status will do: it means that the TLS connection stood.
probe_kubelet_certificate() {
    probed=$(https_status "${1#*|}" 10250 /healthz "$pki/ca.crt")
    case $probed in 000*) printf '%s (%s:10250): %s\n' "${1%%|*}" "${1#*|}" "${probed#000 }" ;; esac
}

check_kubelet_metrics() {
    expect "200 with metrics from /metrics and /metrics/cadvisor of every kubelet"
    # shellcheck disable=SC2046 # a list of words
    problems=$(for_each 8 probe_kubelet_metrics $(planned worker | tr ' ' '|'))
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "$(planned worker | count_lines) kubelets"
}

probe_kubelet_metrics() {
    for path in /metrics:kubelet_ /metrics/cadvisor:machine_cpu_cores; do
        as_admin "${1#*|}" 10250 "${path%:*}" | awk -v prefix="${path#*:}" -v who="${1%%|*}${path%:*}" '
            NR == 1 { status = $0 }
            index($0, prefix) == 1 { found = 1 }
            END { if (status != 200) print who ": " status; else if (!found) print who ": no " prefix }'
    done
}

# lib/kubelet-configz.tsv: a field and how the kubelet prints its value, set apart by a tab. Fields
# that are zero, false or empty may be left out of the answer.
check_kubelet_configz() {
    expect "every setting of lib/kubelet-configz.tsv in the answer of every kubelet"
    # shellcheck disable=SC2046 # a list of words
    problems=$(for_each 8 probe_configz $(planned_names worker))
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "$(count_lines <"$here/lib/kubelet-configz.tsv") settings on $(planned worker | count_lines) workers"
}

probe_configz() {
    answer=$(kube get --raw "/api/v1/nodes/$1/proxy/configz" 2>&1) || { printf '%s: %s\n' "$1" "$(printf '%s' "$answer" | tail -n 1)"; return; }
    printf '%s\n' "$answer" | awk -v who="$1" -v table="$here/lib/kubelet-configz.tsv" '
        { text = text $0 }
        END {
            while ((getline line <table) > 0) {
                split(line, part, "\t")
                key = "\"" part[1] "\":"
                if (index(text, key part[2])) continue
                if (!index(text, key) && part[2] ~ /^(0|false|""|\[\]|\{\}|"0s")$/) continue
                rest = index(text, key) ? substr(text, index(text, key) + length(key), 40) : "not there"
                print who ": " part[1] " is " rest ", not " part[2]
            }
        }'
}

check_kubelet_authorization() {
    expect "401 without a certificate, 403 as the controller manager, 200 as an administrator, on every worker"
    # shellcheck disable=SC2046 # a list of words
    problems=$(for_each 8 probe_kubelet_authorization $(planned worker | tr ' ' '|'))
    [ -z "$problems" ] || { saw "$(printf '%s\n' "$problems" | few)"; return 1; }
    saw "401, 403, 200 from $(planned worker | count_lines) kubelets"
}

probe_kubelet_authorization() {
    nobody=$(https_status "${1#*|}" 10250 /metrics "$pki/ca.crt")
    wrong=$(https_status "${1#*|}" 10250 /metrics "$pki/ca.crt" "$work/wrong.crt" "$work/wrong.key")
    right=$(https_status "${1#*|}" 10250 /metrics "$pki/ca.crt" "$work/admin.crt" "$work/admin.key")
    [ "$nobody $wrong $right" = "401 403 200" ] ||
        printf '%s: %s, %s, %s\n' "${1%%|*}" "$nobody" "$wrong" "$right"
}
