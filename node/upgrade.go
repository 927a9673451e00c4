package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/vsfleet/vsfleet/internal/packages"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/guest"
)

// upgrades are the package managers whose packages can be upgraded, the first that a guest
// has. Files of the guest's own configuration are kept.
var upgrades = []struct {
	program string
	line    string
}{
	{"/usr/bin/apt-get", "export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_MODE=a; apt-get -q update && exec apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold dist-upgrade"},
	{"/usr/bin/dnf", "exec dnf -y --refresh upgrade"},
	{"/sbin/apk", "exec apk --update-cache upgrade"},
}

// upgrade upgrades the packages of a running guest. All of its own files have been kept in
// the generation of the run; if the upgrade fails or is interrupted, they are put back at
// once.
func (h *Host) upgrade(ctx context.Context, name, run string, options guest.Options, progress builder.Progress) (api.StepResult, error) {
	line, err := h.upgradeLine(ctx, name)
	if err != nil {
		return api.StepResult{Outcome: api.Failed}, err
	}
	before := h.packagesOf(ctx, name)
	said := tail{progress: progress}
	status, err := h.Guests.RunOver(ctx, name, guest.Program{Argv: []string{"/bin/sh", "-c", line}}, guest.Streams{In: strings.NewReader(""), Out: &said, Errs: &said})
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d%s", status, lastLine(said.kept))
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return h.undoUpgrade(ctx, name, run, options, fmt.Errorf("upgrade: %w", err))
	}
	after := h.packagesOf(ctx, name)
	if len(before) > 0 && maps.Equal(before, after) {
		return api.StepResult{Outcome: api.Unchanged}, h.Guests.ForgetGeneration(ctx, name, run)
	}
	if len(before) > 0 {
		progress.Report(difference(before, after), 0, 0)
	}
	return api.StepResult{Outcome: api.Changed}, nil
}

// undoUpgrade puts a guest back whose upgrade has failed.
func (h *Host) undoUpgrade(ctx context.Context, name, run string, options guest.Options, why error) (api.StepResult, error) {
	_, err := h.Guests.Revert(context.WithoutCancel(ctx), name, run, options)
	if err != nil {
		return api.StepResult{Outcome: api.Failed}, errors.Join(why, fmt.Errorf("put its files back: %w; to try again: vsfleet guest revert", err))
	}
	return api.StepResult{Outcome: api.Failed}, fmt.Errorf("%w; all of its files were put back", why)
}

// upgradeLine returns the line for a shell that upgrades the packages of a guest.
func (h *Host) upgradeLine(ctx context.Context, name string) (string, error) {
	var known []string
	for _, u := range upgrades {
		info, err := h.Guests.FileInfo(ctx, name, u.program)
		if err != nil {
			return "", err
		}
		if info.Exists {
			return u.line, nil
		}
		known = append(known, u.program)
	}
	return "", fmt.Errorf("it has none of %s: update its image instead (vsfleet image update)", strings.Join(known, ", "))
}

// difference describes how packages differ in a line.
func difference(before, after packages.Set) string {
	added, changed, removed := 0, 0, 0
	for name, version := range after {
		switch had, known := before[name]; {
		case !known:
			added++
		case had != version:
			changed++
		}
	}
	for name := range before {
		if _, known := after[name]; !known {
			removed++
		}
	}
	return fmt.Sprintf("%d packages upgraded, %d added, %d removed", changed, added, removed)
}

// tail keeps the end of what is written to it, and reports each line as progress.
type tail struct {
	kept     []byte
	line     []byte
	progress builder.Progress
}

func (t *tail) Write(p []byte) (int, error) {
	for part := range bytes.Lines(p) {
		if t.line = append(t.line, part...); !bytes.HasSuffix(t.line, []byte("\n")) && len(t.line) < 4096 {
			continue
		}
		t.kept, t.line = t.line, nil
		if text := strings.TrimSpace(string(t.kept)); text != "" {
			t.progress.Report(text, 0, 0)
		}
	}
	return len(p), nil
}

// packagesOf returns the packages of a guest, as far as they can be read: what has changed
// is shown, and no more depends on it.
func (h *Host) packagesOf(ctx context.Context, guest string) packages.Set {
	installed, _ := h.guestPackages(ctx, guest)
	return installed.Packages
}
