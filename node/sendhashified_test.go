package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// sent returns what is sent of a guest.
func (s *shared) sent(name string) []byte {
	s.t.Helper()
	var b bytes.Buffer
	answer, err := s.Guests.Send(s.t.Context(), api.SendGuest{Guest: name, How: api.SendFrozen}, strings.NewReader(""), &b, io.Discard, guest.Options{})
	must(s.t, err)
	if answer.Image != s.image {
		s.t.Errorf("%s lies on %s, want its image", name, answer.Image)
	}
	return b.Bytes()
}

func (s *shared) received(name string, context int, files []byte) {
	s.t.Helper()
	must(s.t, s.Guests.Receive(s.t.Context(), api.ReceiveGuest{Create: true, Guest: api.Guest{
		Name: name, Context: context, Image: s.image, Network: api.Network{Mode: api.ModeNAT},
	}}, bytes.NewReader(files)))
}

// notSent are fractions of times, and what the root itself is like.
var notSent = regexp.MustCompile(`(?m)\d{9}$|^\. .*`)

func (s *shared) seenWhole(name string) string {
	return notSent.ReplaceAllString(s.seen(name, true), "")
}

// A guest that shares files of its own with others is sent with them, whatever it did to
// them since.
func TestAHashifiedGuestIsSentWhole(t *testing.T) {
	s := newShared(t)
	for i, name := range []string{"a", "bb"} {
		s.guest(name, 300+i)
		s.change(name)
	}
	whole, plain := s.seenWhole("a"), s.sent("a")
	_, err := s.Hashify(t.Context(), api.Hashify{})
	must(t, err)
	if n := len(s.own("a")); n > 20 {
		t.Fatalf("it has %d files of its own", n)
	}
	hashified := s.sent("a")
	if n, m := len(hashified), len(plain); n < m*9/10 || n > m*11/10 {
		t.Errorf("%d bytes are sent, and %d before it shared files", n, m)
	}
	s.received("copy", 310, hashified)
	if now := s.seenWhole("copy"); now != whole {
		t.Errorf("the copy sees other files:\n%s", missingLines(whole, now))
	}

	// What it does to them afterwards.
	s.root("a", func(dir string) {
		must(t, os.Chmod(dir+"/usr/bin/p4", 0o700))
		must(t, os.Link(dir+"/usr/bin/p5", dir+"/usr/bin/p5.too"))
		must(t, os.Rename(dir+"/usr/bin/p6", dir+"/usr/bin/p6.moved"))
		must(t, os.Chown(dir+"/usr/bin/p7", 5, 5))
		must(t, os.Rename(dir+"/usr/bin/p7", dir+"/usr/lib/p7"))
		must(t, os.Remove(dir+"/usr/bin/p8"))
		must(t, os.Rename(dir+"/usr/lib/package", dir+"/usr/lib/renamed"))
		must(t, os.Remove(dir+"/usr/lib/renamed/deep/f1"))
		must(t, os.Mkdir(dir+"/usr/lib/package", 0o750))
		put(t, dir+"/usr/lib/package/mine", content(9000, size))
		must(t, os.Rename(dir+"/usr/lib/hidden", dir+"/usr/lib/shown"))
		must(t, os.Remove(dir+"/usr/lib/shown/new"))
		put(t, dir+"/usr/lib/shown/newer", content(9001, size))
		must(t, os.RemoveAll(dir+"/etc/conf"))
		must(t, os.Rename(dir+"/usr/lib/dir", dir+"/usr/lib/file"))
		must(t, os.Remove(dir+"/usr/lib/linked2"))
		f, err := os.OpenFile(dir+"/usr/bin/p9", os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.WriteString("more")
		must(t, errors.Join(err, f.Close()))
	})
	whole = s.seenWhole("a")
	s.received("later", 311, s.sent("a"))
	if now := s.seenWhole("later"); now != whole {
		t.Errorf("the later copy sees other files:\n%s", missingLines(whole, now))
	}
	for _, dir := range []string{"usr/lib/renamed/deep", "usr/lib/shown"} { // nothing hides what nobody has
		upper, err := s.Guests.Root("later")
		must(t, err)
		entries, err := os.ReadDir(filepath.Join(upper, dir))
		must(t, err)
		for _, e := range entries {
			if e.Type()&fs.ModeCharDevice != 0 {
				t.Errorf("%s/%s is a whiteout", dir, e.Name())
			}
		}
	}

	// Damage on the disk is not sent.
	object := fmt.Sprintf("%x", sha256.Sum256(content(1011, size)))
	damaged := filepath.Join(s.dir, "data/.store", object[:2], object[2:])
	must(t, os.Chmod(damaged, 0o600))
	b, err := os.ReadFile(damaged)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.Rename(damaged, damaged+".old"))
	must(t, os.WriteFile(damaged, b, 0o444))
	_, err = s.Guests.Send(t.Context(), api.SendGuest{Guest: "bb", How: api.SendFrozen}, strings.NewReader(""), io.Discard, io.Discard, guest.Options{})
	if err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged object was sent: %v", err)
	}
}

// So is one of a trust domain, whose files are not where those of others are.
func TestAHashifiedGuestOfATrustDomainIsSentWhole(t *testing.T) {
	s := newShared(t)
	for i, name := range []string{"d1", "d2"} {
		must(t, s.Guests.Create(t.Context(), api.Guest{Name: name, Context: 330 + i, Image: s.image, TrustDomain: "acme", Network: api.Network{Mode: api.ModeNAT}}))
		s.change(name)
	}
	whole := s.seenWhole("d1")
	_, err := s.Hashify(t.Context(), api.Hashify{})
	must(t, err)
	if n := len(s.own("d1")); n > 20 {
		t.Fatalf("it has %d files of its own", n)
	}
	s.received("copy", 340, s.sent("d1"))
	if now := s.seenWhole("copy"); now != whole {
		t.Errorf("the copy sees other files:\n%s", missingLines(whole, now))
	}
}
