package composefs

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asset reads a file of composefs' test suite.
func asset(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil {
		return string(text)
	}
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err = io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestImagesAreThoseOfMkcomposefs(t *testing.T) {
	const byTree = -1 // the version that mkcomposefs would take
	for _, row := range []struct {
		dump, name string
		version    int
		digest     string // as mkcomposefs --print-digest says
	}{
		{"bigfile", "bigfile", byTree, "160c71227628d810604ad305e5d4a912e01a5964866b9bec9f8fddc55e352bfb"},
		{"bigfile-xattr", "bigfile-xattr", byTree, "96477776a78abab3bf28c57b16dd0c47ed41a05774a2352ecf15c3ac15108b3f"},
		{"config", "config", byTree, "26cbaf47c39d0b5ed47bd959595e4d84f01c8eb8196d861d9f00bf527c244ad2"},
		{"config-with-hard-link", "config-with-hard-link", byTree, "a7afa3886a072e11ac8dae09d46da54ea43ca0cfe34d170b1cdc9287cceca6a1"},
		{"cs9-x86_64-minimal", "cs9-x86_64-minimal", byTree, "ea6a12d09a928b965d9881f6703c54cf2801ad0a5fad2c921819d6c7ba4956ce"},
		{"honggfuzz-bigfile-with-acl", "honggfuzz-bigfile-with-acl", byTree, "062b7c9e88806d8fe267287a35ba7abfa8faf70460b2dd8294781d6f26d64912"},
		{"honggfuzz-chardev-nonzero-size", "honggfuzz-chardev-nonzero-size", byTree, "efdef54b5e204b11f2590a41cde5d01c57622393e2a428af4fa4cfaac18c4575"},
		{"honggfuzz-long-symlink", "honggfuzz-long-symlink", byTree, "d7894fc7641b935efec393392e36dfab0ffbcc20d29a4c684aebde71b8c38005"},
		{"honggfuzz-longlink-unterminated", "honggfuzz-longlink-unterminated", byTree, "fe675c995eb476c165ec5af1001bd9289f57bacf58d55373a5695b67f421bebe"},
		{"longlink", "longlink", byTree, "32f1351322d32ebed1bde5fd72e2d218435c4aada13a359f1b1d1f1e126815a6"},
		{"no-newline", "no-newline", 0, "4aa51e1805ee1c2d3bd8d9ba2f2740948c2ee4de7c3cbfcef863982e456f46fe"},
		{"special", "special", 0, "6fae72a66167ef8d5830fa15647263ef1b535681aa91fdf195fa3d6f5e3ae15e"},
		{"special", "special.v1", 1, "1d268f8bc7609b4f8f8467e98565f45300f9e192c0e6ef2d05820d3ea41d4515"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dump := asset(t, row.dump+".dump")
			if len(dump) > 1<<20 && testing.Short() {
				return
			}
			tree, err := parseDump(dump)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(asset(t, row.name+".sha256"))
			for range 2 { // a tree can be written more than once
				sum := sha256.New()
				var digest [32]byte
				if row.version == byTree {
					digest, err = tree.Write(sum)
				} else {
					digest, err = tree.write(sum, row.version)
				}
				if got := hex.EncodeToString(sum.Sum(nil)); err != nil || got != want {
					t.Errorf("the image has the SHA-256 %s, error %v; want %s", got, err, want)
				}
				if got := hex.EncodeToString(digest[:]); got != row.digest {
					t.Errorf("its digest is %s, want %s", got, row.digest)
				}
			}
		})
	}
}

func TestWhatMkcomposefsRefusesIsRefused(t *testing.T) {
	for name, want := range map[string]string{
		"big-inline":           "belongs in an object",
		"dir-hardlink":         "does not come before it",
		"dot-name":             `"."`,
		"dotdot-name":          `".."`,
		"empty-link-name":      "link's target has 0 bytes",
		"empty-name":           "name is empty",
		"empty-xattr-key":      "name has 0 bytes",
		"honggfuzz-long-xattr": "more than 32767 bytes",
		"long-link":            "link's target has",
		"long-xattr-key":       "name has",
		"long-xattr-value":     "names no type", // mkcomposefs comes to the attribute first
		"no-ftype":             "names no type",
		"self-hardlink":        "does not come before it",
		"too-big":              "larger than EROFS can hold",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseDump(asset(t, "should-fail-"+name+".dump"))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}
