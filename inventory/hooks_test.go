package inventory

import (
	"strings"
	"testing"
)

func TestHooks(t *testing.T) {
	t.Chdir(t.TempDir())
	keys, seal := sealing(t, ".")
	write(t, ".", "stop.sh", "#!/bin/sh\necho ${HOME}\n")
	write(t, ".", "start.sh", "#!/bin/sh\necho ${host.name}\n")
	write(t, ".", "fleet.yml", base+"  www:\n    on: all\n    image: deb\n    hooks:\n"+`      post-start: "echo ${host.name}"
      pre-stop: {source: stop.sh}
      pre-start: {template: start.sh}
      post-stop: `+seal("hunter2", 8)+"\n")
	inv, err := Load("fleet.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Open(t.Context(), Sealed(inv.Hosts)); err != nil {
		t.Fatal(err)
	}
	for phase, want := range map[string]string{
		"post-start": "echo h2", "pre-stop": "#!/bin/sh\necho ${HOME}\n", "pre-start": "#!/bin/sh\necho h2\n", "post-stop": "hunter2",
	} {
		f := fileOf(t, inv, "h2", "scripts/"+phase+".d/50-inventory")
		content, err := f.Read()
		mode, secret := uint32(0o755), phase == "post-stop"
		if secret {
			mode = 0o700
		}
		if err != nil || string(content) != want || f.Mode != mode || f.Secret != secret || f.Owner != "root:root" || f.OnChange.Restart {
			t.Errorf("%s: %q, %v, %+v", phase, content, err, f)
		}
	}
}

func TestErrorsOfHooks(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, row := range []struct{ name, text, want string }{
		{"a moment that there is not", "      post-strat: x\n", `fleet.yml:8:7: hooks: there is no "post-strat", want initialize, prepre-start, pre-start, post-start, pre-stop, post-stop or postpost-stop (did you mean "post-start"?)`},
		{"nothing", "      pre-stop:\n", "fleet.yml:8:7: hooks: pre-stop: want its text, {source: FILE}, or {template: FILE}"},
		{"two sources", "      pre-stop: {source: a, template: a}\n", "fleet.yml:8:7: hooks: pre-stop: want its text,"},
		{"a list", "      pre-stop: [sh]\n", "fleet.yml:8:17: hook pre-stop: want its text, {source: FILE}, or {template: FILE}, have a list"},
		{"a file that is not there", "      pre-stop: {source: none}\n", "fleet.yml:8:26: source: stat none: no such file or directory"},
		{"a variable of a shell", "      pre-stop: 'echo ${HOME}'\n", "fleet.yml:8:23: unknown variable ${HOME}"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Load(write(t, ".", "fleet.yml", base+"  www:\n    on: all\n    image: deb\n    hooks:\n"+row.text))
			if err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
		})
	}
}
