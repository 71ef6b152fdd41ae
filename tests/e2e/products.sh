#!/bin/bash
# Which matrix products a CPU forms: said, recorded, kept by a resume; the same bits at every level and thread count.
set -u
. tests/e2e/lib.bash

make_text text.txt 20000 5
base=(--data=text.txt "${tiny[@]}" "${quiet[@]}" --dtype=fp32 --device=cpu --model=llama-nano --lr-schedule=constant)
four=(--steps=4)
same_curves() { cmp <(curve "$1") <(curve "$2"); }

must "usual" "${base[@]}" "${four[@]}" --output-dir=usual
usual=$(sed -n 's/.*plan    arithmetic: matrix products //p' err)
check "the banner names them" grep -qx '[a-z0-9-]*' <<<"$usual"
check "config.toml has them" grep -qx "cpu-products = \"$usual\"" usual/config.toml
check "and the checkpoint" grep -q "\"cpu_products\": *\"$usual\"" usual/checkpoints/step-*/*.json
must "named" "${base[@]}" "${four[@]}" --cpu-products="$usual" --output-dir=named
check "by its name the same" same_curves usual named

for products in fp32 library; do
    must "$products" "${base[@]}" "${four[@]}" --cpu-products=$products --output-dir=$products
    check "$products: said" grep -q "plan    arithmetic: matrix products $products\$" err
    for change in --recompute=sqrt --threads=1 --threads=3; do
        must "$products $change" "${base[@]}" "${four[@]}" --cpu-products=$products $change \
            --output-dir=$products$change
        check "$products: the same curve with $change" same_curves $products $products$change
    done
    must "$products, six steps" "${base[@]}" --cpu-products=$products --steps=6 --output-dir=six-$products
    must "$products, resumed" --resume=$products --steps=6
    check "$products: a resume keeps to them" grep -q "plan    arithmetic: matrix products $products\$" err
    check "$products: and to every bit" same_curves six-$products $products
done
close() {
    paste -d: <(curve fp32) <(curve library) | awk -F'[:,]' '
        { difference = $4 - $12; if (difference > 1e-5 || difference < -1e-5) { print; bad = 1 } } END { exit bad }'
}
check "they agree to rounding" close
must "changed" --resume=fp32 --steps=7 --cpu-products=library
check "an option changes them" grep -q 'plan    arithmetic: matrix products library$' err

exit $((failures > 0))
