package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

func TestReplaceSetsTheOldGuestAside(t *testing.T) {
	h := host(t)
	ctx := context.Background()
	old := inMode(api.ModeNAT, "www", 120, "sleep", "1000")
	must(t, h.Create(ctx, old))
	file := filepath.Join(h.rootDir("www"), "etc/mine")
	must(t, os.WriteFile(file, []byte("precious\n"), 0o644))
	must(t, h.Start(ctx, "www", Options{}))

	if _, err := h.Replace(ctx, old); err == nil || !strings.Contains(err.Error(), "the old one runs: stop it first") {
		t.Errorf("a guest that runs is replaced: %v", err)
	}
	if on, err := h.Running("www"); err != nil || !on {
		t.Errorf("it does not run any more (%v)", err)
	}
	_, err := h.Stop(ctx, "www")
	must(t, err)

	// If the new guest cannot be made, the old one stays where it was.
	must(t, h.Create(ctx, api.Guest{Name: "other", Context: 121, Network: api.Network{Mode: api.ModeNAT}}))
	bad := old
	bad.Context = 121
	if _, err := h.Replace(ctx, bad); err == nil || !strings.Contains(err.Error(), "context 121 is guest other's") {
		t.Errorf("a guest with another's context: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious\n" {
		t.Errorf("the old guest's file: %q, %v", b, err)
	}

	old.Context = 122
	aside, err := h.Replace(ctx, old)
	must(t, err)
	c, err := h.Read("www")
	if err != nil || c.Context != 122 {
		t.Errorf("the new one is %+v, %v", c.Guest, err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new one has the old one's file (%v)", err)
	}
	if names, err := h.Names(); err != nil || strings.Join(names, " ") != "other www" {
		t.Errorf("guests are %v (%v)", names, err)
	}
	images, err := h.Aside()
	if err != nil || len(images) != 1 || images[filepath.Base(aside)] != "sha256:test" {
		t.Errorf("set aside are %v (%v)", images, err)
	}

	// Renaming it back restores the guest.
	must(t, h.Delete(ctx, "www"))
	must(t, errors.Join(os.Rename(aside, h.config("www")), os.Rename(h.data(filepath.Base(aside)), h.data("www"))))
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious\n" {
		t.Errorf("the old guest's file: %q, %v", b, err)
	}
	must(t, h.Start(ctx, "www", Options{}))
}
