package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestNothingHeavyIsLinked: every start of vsnode pays for what it links, used or
// not: the bytes on the wire, and the tables that packages make at init.
func TestNothingHeavyIsLinked(t *testing.T) {
	list := exec.Command("go", "list", "-deps", ".")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if !slices.Contains(linked, "github.com/vsfleet/vsfleet/node") {
		t.Fatalf("go list says %q", out)
	}
	for _, heavy := range []string{"regexp", "text/template", "net/http", "crypto/tls", "log/slog", "encoding/gob", "github.com/spf13/cobra", "go.yaml.in/yaml/v3"} {
		if slices.Contains(linked, heavy) {
			t.Errorf("vsnode links %s", heavy)
		}
	}
}
