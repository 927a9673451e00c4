// Command pack compresses a vsnode for vsfleet to carry, and writes the hash
// and the size of what it compressed beside it. The Makefile calls it.
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

func main() {
	out := flag.String("o", "", "the .zst to write")
	flag.Parse()
	if err := pack(flag.Arg(0), *out); err != nil {
		fmt.Fprintf(os.Stderr, "pack: %v\n", err)
		os.Exit(1)
	}
}

func pack(in, out string) error {
	name, ok := strings.CutSuffix(out, ".zst")
	if !ok {
		return fmt.Errorf("-o %s: want a name that ends in .zst", out)
	}
	plain, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	// A window that any zstd unpacks without --long.
	w, err := zstd.NewWriter(&packed, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return err
	}
	if _, err := w.Write(plain); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	// The .zst comes last: make takes it for the sign that all is done.
	sum := fmt.Sprintf("%x %d\n", sha256.Sum256(plain), len(plain))
	if err := os.WriteFile(name+".sha256", []byte(sum), 0o644); err != nil {
		return err
	}
	return os.WriteFile(out, packed.Bytes(), 0o644)
}
