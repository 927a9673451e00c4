package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// rootName returns the host's name for the root user and group of a guest.
func rootName(guest string) string { return "vs-" + guest }

// A userRecord is systemd's description of a user (systemd.io/USER_RECORD).
type userRecord struct {
	UserName      string `json:"userName"`
	UID           int    `json:"uid"`
	GID           int    `json:"gid"`
	RealName      string `json:"realName"`
	Disposition   string `json:"disposition"`
	HomeDirectory string `json:"homeDirectory"`
	Shell         string `json:"shell"`
	Locked        bool   `json:"locked"`
}

type groupRecord struct {
	GroupName   string `json:"groupName"`
	GID         int    `json:"gid"`
	Disposition string `json:"disposition"`
}

// nameRoot gives the guest's root a name on the host (nss-systemd(8), drop-in records):
// ps and ls show it instead of a number, and systemd-nspawn -U, which asks whether the
// first id of a range has a user, gives that range to no machine. The guest's other ids
// stay numbers.
func (g *Guest) nameRoot() error {
	if g.host.UserDir == "" {
		return nil
	}
	if err := os.MkdirAll(g.host.UserDir, 0o755); err != nil {
		return err
	}
	name, id := rootName(g.name), procctx.BaseID(g.noted.Context)
	user := userRecord{
		UserName: name, UID: id, GID: id, RealName: "root of guest " + g.name, Disposition: "container",
		HomeDirectory: "/", Shell: "/usr/sbin/nologin", Locked: true,
	}
	for suffix, record := range map[string]any{".user": user, ".group": groupRecord{name, id, "container"}} {
		text, err := json.Marshal(record)
		if err != nil {
			return err
		}
		file := filepath.Join(g.host.UserDir, name+suffix)
		if err := linux.ReplaceFile(file, append(text, '\n'), 0o644); err != nil {
			return fmt.Errorf("name the guest's root on the host: %w", err)
		}
		byID := filepath.Join(g.host.UserDir, strconv.Itoa(id)+suffix)
		if err := errors.Join(remove(byID), os.Symlink(name+suffix, byID)); err != nil {
			return fmt.Errorf("name the guest's root on the host: %w", err)
		}
	}
	return nil
}

// unnameRoot removes what nameRoot wrote.
func (g *Guest) unnameRoot() error {
	if g.host.UserDir == "" {
		return nil
	}
	names := []string{rootName(g.name)}
	if g.noted != nil {
		names = append(names, strconv.Itoa(procctx.BaseID(g.noted.Context)))
	}
	var err error
	for _, name := range names {
		for _, suffix := range []string{".user", ".group"} {
			err = errors.Join(err, remove(filepath.Join(g.host.UserDir, name+suffix)))
		}
	}
	return err
}
