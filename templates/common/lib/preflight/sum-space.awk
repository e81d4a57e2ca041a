# needs ("kilobytes path [1|kept]") and df's line for each of them → "mount free needed" in KiB, with 50 MiB to spare.
# 1: the file is a hard link of the generation's where both are on the file system of the line `kept`.
FILENAME == ARGV[1] { need[FNR] = $1; kind[FNR] = $3; count = FNR; next }
FNR == 1 { next }
kind[FNR - 1] == "kept" { kept = $6 }
kind[FNR - 1] == 1 && $6 == kept { next }
{ free[$6] = $4; sum[$6] += need[FNR - 1] }
END {
    for (mount in sum) if (sum[mount] > 0) print mount, free[mount], sum[mount] + 51200
    exit FNR - 1 != count
}
