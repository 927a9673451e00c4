package history

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// Bounds of the files that are read for the digest of an inventory.
const (
	mostFiles = 10_000
	mostBytes = 256 << 20
)

// Describe identifies the inventory in files and directories by a digest of their
// contents and, if they are in a git repository, by its revision. Fields that cannot be
// determined are empty.
func Describe(ctx context.Context, paths []string) report.InventoryRecord {
	var r report.InventoryRecord
	for _, path := range paths {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		r.Files = append(r.Files, path)
	}
	r.Digest = digest(r.Files)
	r.Revision, r.Dirty = revision(ctx, r.Files)
	return r
}

// beside are the directories with variables that belong to an inventory beside them.
var beside = []string{"group_vars", "host_vars"}

// digest returns a digest of the names and contents of files, of the files in
// directories, and of the variables beside them. It is empty if a file cannot be read.
func digest(paths []string) string {
	sum := sha256.New()
	files, size := 0, int64(0)
	add := func(root, name, path string) error {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		if files, size = files+1, size+info.Size(); files > mostFiles || size > mostBytes {
			return fmt.Errorf("%s: it is too large", root)
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(sum, "%q %d\n", name, len(data))
		sum.Write(data)
		return err
	}
	walk := func(root string) error {
		return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(filepath.Dir(root), path)
			if err != nil {
				return err
			}
			return add(root, name, path)
		})
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			err = walk(path)
		} else if err == nil {
			err = add(path, "", path)
			for _, dir := range beside {
				if _, none := os.Stat(filepath.Join(filepath.Dir(path), dir)); err == nil && none == nil {
					err = walk(filepath.Join(filepath.Dir(path), dir))
				}
			}
		}
		if err != nil {
			return ""
		}
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// revision returns the current commit of the repository of the files, according to git,
// and whether the files differ from it. git refuses repositories of other users, whose
// configuration may name programs to run.
func revision(ctx context.Context, paths []string) (commit string, dirty bool) {
	if len(paths) == 0 {
		return "", false
	}
	args := []string{"-C", filepath.Dir(paths[0]), "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--"}
	args = append(args, paths...)
	for _, path := range paths {
		for _, dir := range beside {
			args = append(args, filepath.Join(filepath.Dir(path), dir))
		}
	}
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", false
	}
	for text := range bytes.Lines(out) {
		text := strings.TrimSuffix(string(text), "\n")
		oid, isOID := strings.CutPrefix(text, "# branch.oid ")
		switch {
		case isOID && oid != "(initial)":
			commit = oid
		case !strings.HasPrefix(text, "#"):
			dirty = true
		}
	}
	return commit, dirty
}
