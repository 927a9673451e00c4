#!/bin/sh
# Compresses netctx_bpfel.o without its line information, half of it: .BTF.ext keeps the
# functions, lines of C become zeros in .BTF, and the symbols that only line information needs
# go. go generate calls it.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

export LC_ALL=C
field() { od -An -tu4 -j"$2" -N4 "$tmp/$1" | tr -d ' '; } # of btf_header and btf_ext_header (linux/btf.h)

llvm-objcopy-14 --dump-section .BTF="$tmp/types" --dump-section .BTF.ext="$tmp/ext" netctx_bpfel.o "$tmp/copy.o"
names=$(($(field types 4) + $(field types 16))) # strings, the last part: all but names of C and of sections go
head -c "$names" "$tmp/types" >"$tmp/bare"
tail -c +$((names + 1)) "$tmp/types" | tr '\0' '\n' | sed '/[^A-Za-z0-9_./]/s/./\x01/g' | tr '\n\001' '\0\0' >>"$tmp/bare"
header=$(field ext 4) functions=$(field ext 12)
[ "$header" = 32 ] && [ "$(field ext 16)" = "$functions" ] && [ "$(field ext 28)" = 0 ] # lines follow functions; nothing is relocated by CO-RE
printf '\4\0\0\0' | dd of="$tmp/ext" bs=1 seek=20 conv=notrunc status=none # of the lines, the size of a record is left
head -c $((header + functions + 4)) "$tmp/ext" >"$tmp/short"
llvm-objcopy-14 --remove-section .rel.BTF.ext --remove-section .llvm_addrsig "$tmp/copy.o"
llvm-objcopy-14 --update-section .BTF="$tmp/bare" --update-section .BTF.ext="$tmp/short" "$tmp/copy.o"
llvm-strip-14 --discard-all "$tmp/copy.o" -o netctx.o
go run ../../fleet/push/pack -o netctx.o.zst netctx.o
rm netctx.o netctx.o.sha256
