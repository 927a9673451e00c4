#!/bin/sh
# Compiles reaper.c for each architecture into DIRECTORY (default: here): bare machine
# code without a header, which begins with its entry. Needs clang-14 and llvm-14.
#   make.sh [DIRECTORY]    make.sh --check: fails unless what is committed is that
set -eu
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
--check) to=$(mktemp -d) ;;
*) to=${1:-$here} ;;
esac
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"; [ "${1:-}" != --check ] || rm -rf "$to"' EXIT
for arch in amd64:x86_64 arm64:aarch64; do
	name=reaper_${arch%:*}
	# Nothing but .text, and no table in it that would have to be relocated.
	clang-14 --target="${arch#*:}-linux-gnu" -Os -ffreestanding -fno-stack-protector -fno-unwind-tables \
		-fno-asynchronous-unwind-tables -fno-jump-tables -fpie -mgeneral-regs-only -Wall -Wextra -Werror \
		-c -o "$tmp/$name.o" "$here/reaper.c"
	if llvm-objdump-14 -r "$tmp/$name.o" | grep R_; then
		echo "$name is not code alone" >&2
		exit 1
	fi
	llvm-objcopy-14 -O binary -j .text "$tmp/$name.o" "$to/$name.bin"
	if [ "${1:-}" = --check ] && ! cmp "$to/$name.bin" "$here/$name.bin"; then
		echo "$name.bin is not what reaper.c makes (run: node/procctx/reaper/make.sh)" >&2
		exit 1
	fi
done
