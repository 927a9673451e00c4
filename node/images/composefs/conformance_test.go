package composefs

import (
	"cmp"
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
		dump, sum string
		version   int
	}{
		{"bigfile", "", byTree},
		{"bigfile-xattr", "", byTree},
		{"config", "", byTree},
		{"config-with-hard-link", "", byTree},
		{"cs9-x86_64-minimal", "", byTree},
		{"honggfuzz-bigfile-with-acl", "", byTree},
		{"honggfuzz-chardev-nonzero-size", "", byTree},
		{"honggfuzz-long-symlink", "", byTree},
		{"honggfuzz-longlink-unterminated", "", byTree},
		{"longlink", "", byTree},
		{"no-newline", "", 0},
		{"special", "", 0},
		{"special", "special.v1", 1},
	} {
		t.Run(cmp.Or(row.sum, row.dump), func(t *testing.T) {
			tree, err := parseDump(asset(t, row.dump+".dump"))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(asset(t, cmp.Or(row.sum, row.dump)+".sha256"))
			for range 2 { // a tree can be written more than once
				sum := sha256.New()
				if row.version == byTree {
					_, err = tree.Write(sum)
				} else {
					_, err = tree.write(sum, row.version)
				}
				if got := hex.EncodeToString(sum.Sum(nil)); err != nil || got != want {
					t.Errorf("the image has the SHA-256 %s, error %v; want %s", got, err, want)
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
