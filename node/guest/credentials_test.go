package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

func credential(name, content string) api.File {
	f := file(setting.Credentials+"/"+name, content)
	f.Mode, f.Secret, f.OnChange = 0o600, true, api.OnChange{Restart: true}
	return f
}

// Credentials are kept beside a guest's configuration, and each start gives them to its
// process 1, as files that only the guest's root can read.
func TestCredentials(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	g := inMode(api.ModeNAT, "creds", 197, "sleep", "1000")
	configured(t, h, g, nil)
	pw, token := credential("db.password", "geheim"), credential("token", "t0ken\n")
	if got, want := differing(t, h, "creds", pw, token), pw.Path+": it is not there\n"+token.Path+": it is not there"; got != want {
		t.Errorf("before: %s", got)
	}
	change(t, h, "run-0", g, pw, token, file("/etc/motd", "hello\n"))
	if got := differing(t, h, "creds", pw, token, file("/etc/motd", "hello\n")); got != "" {
		t.Errorf("written: %s", got)
	}
	kept := filepath.Join(h.config("creds"), "credentials/db.password")
	if st, err := os.Stat(kept); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("on the host: %v, %v", st, err)
	}
	must(t, os.WriteFile(filepath.Join(filepath.Dir(kept), ".x.vsfleet~"), []byte("left"), 0o600))

	must(t, h.Start(ctx, "creds", Options{}))
	const look = "cd /run/host/credentials; busybox stat -c '%a %u:%g %n' . *; ls -A; cat db.password; tr '\\0' '\\n' </proc/1/environ | grep CRED"
	const want = "700 0:0 .\n400 0:0 db.password\n400 0:0 token\ndb.password\ntoken\ngeheimCREDENTIALS_DIRECTORY=/run/host/credentials"
	if got, _ := run(t, h, "creds", "sh", "-c", look); got != want {
		t.Errorf("inside: %s", got)
	}

	// A change reaches the guest at its next start, and nobody is shown the old one.
	pw = credential("db.password", "new")
	a, err := h.Files(ctx, api.FilesRequest{Contents: true, Guests: []api.GuestFiles{{Guest: "creds", Files: []api.File{pw}}}})
	if err != nil || len(a.Guests[0].Files) != 1 || a.Guests[0].Files[0].Differs != "content" || a.Guests[0].Files[0].Content != nil {
		t.Errorf("%+v, %v", a, err)
	}
	g.Nice = 5
	change(t, h, "run-1", g, pw)
	a, err = h.Files(ctx, api.FilesRequest{Guests: []api.GuestFiles{{Guest: "creds", Files: []api.File{pw}}}})
	if err != nil || len(a.Guests[0].Files) != 0 || len(a.Guests[0].Pending) != 1 || !a.Guests[0].Pending[0].Restart {
		t.Errorf("%+v, %v", a, err)
	}
	must(t, h.Restart(ctx, "creds", Options{}))
	if got, _ := run(t, h, "creds", "cat", "/run/host/credentials/db.password"); got != "new" {
		t.Errorf("restarted: %s", got)
	}
	if c, err := h.Read("creds"); err != nil || len(c.Unread) != 1 || c.Unread[0].Why != noCopy {
		t.Errorf("of no effect: %+v, %v", c.Unread, err)
	}

	// A revert takes it back, with a restart: the rest of the configuration needs none.
	if got := revert(t, h, "creds", "run-1"); got != api.Changed {
		t.Errorf("reverted: %s", got)
	}
	if got, _ := run(t, h, "creds", "cat", "/run/host/credentials/db.password"); got != "geheim" {
		t.Errorf("reverted: %s", got)
	}
	if got, _ := run(t, h, "creds", "cat", "/run/host/credentials/token"); got != "t0ken" {
		t.Errorf("not changed by the run: %s", got)
	}
}

func TestBadCredentials(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeNAT, "badcreds", 198, "sleep", "1000")
	configured(t, h, g, nil)
	for _, name := range []string{"../context", "a/b", "", "..", "a:b", "x.bak", strings.Repeat("x", 201)} {
		if outcome, err := h.Provide(t.Context(), g.Name, []api.File{credential(name, "x")}); err == nil || outcome != api.Unchanged {
			t.Errorf("%q: %s, %v", name, outcome, err)
		}
	}
	half := strings.Repeat("x", setting.MaxCredentials/2)
	_, err := h.Provide(t.Context(), g.Name, []api.File{credential("a", half), credential("b", half), credential("c", "x")})
	must(t, err)
	if err := h.Start(t.Context(), g.Name, Options{}); err == nil || !strings.Contains(err.Error(), "want files of at most 1 MiB together, which is what systemd reads: it ends at c") {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(h.config(g.Name), "credentials/c")))
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if got, _ := run(t, h, g.Name, "busybox", "wc", "-c", "/run/host/credentials/b"); !strings.HasPrefix(strings.TrimSpace(got), "524288 ") {
		t.Errorf("inside: %s", got)
	}
}
