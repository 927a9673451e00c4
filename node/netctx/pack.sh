#!/bin/sh
# Compresses netctx_bpfel.o without its line information, half of it: .BTF.ext keeps the
# functions, and the symbols that only line information needs go. go generate calls it.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

field() { od -An -tu4 -j"$1" -N4 "$tmp/ext" | tr -d ' '; } # of btf_ext_header (linux/btf.h)

llvm-objcopy-14 --dump-section .BTF.ext="$tmp/ext" netctx_bpfel.o "$tmp/copy.o"
header=$(field 4) functions=$(field 12)
[ "$header" = 32 ] && [ "$(field 16)" = "$functions" ] && [ "$(field 28)" = 0 ] # lines follow functions; nothing is relocated by CO-RE
printf '\4\0\0\0' | dd of="$tmp/ext" bs=1 seek=20 conv=notrunc status=none # of the lines, the size of a record is left
head -c $((header + functions + 4)) "$tmp/ext" >"$tmp/short"
llvm-objcopy-14 --remove-section .rel.BTF.ext --remove-section .llvm_addrsig "$tmp/copy.o"
llvm-objcopy-14 --update-section .BTF.ext="$tmp/short" "$tmp/copy.o"
llvm-strip-14 --discard-all "$tmp/copy.o" -o netctx.o
go run ../../fleet/push/pack -o netctx.o.zst netctx.o
rm netctx.o netctx.o.sha256
