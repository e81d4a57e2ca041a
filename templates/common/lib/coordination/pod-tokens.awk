# "NAMESPACE/NAME START SECONDS" of pods and their tokens → a line if one may hold a token from before `since`, else
# exit code 1. `time` is `since` as the API writes it. Kubelets renew a token when 80 % of its time is over, and after a
# day at the latest; three minutes later the pod has it.
$2 == "-" || $2 > time { next }
{
    age = $3 * 0.8
    if (age > 86400) age = 86400
    renewed = since + age + 180
    if (renewed <= now) next
    count++
    if (renewed > end) { end = renewed; pod = $1 }
}
END {
    if (count) printf "%d pods may hold a token of a key that this bundle does not accept (%s): %s %d minutes, %s\n",
        count, pod, "kubelets renew them within", (end - now + 59) / 60, "or restart them"
    exit !count
}
