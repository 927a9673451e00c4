package stat

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	page := uint64(os.Getpagesize())
	const tail = " 1 7 7 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1 0 555 8192000 77 18446744073709551615 1 1 0 0 0\n"
	want := process{user: 44 * tick, sys: 66 * tick, start: 5550 * time.Millisecond, vsz: 8192000, rss: 77 * page}
	for _, c := range []struct {
		name, text string
		want       process
		bad        bool
	}{
		{name: "a plain process", text: "7 (sh) S" + tail, want: want},
		{name: "a name with brackets and blanks", text: "7 (a) R 1 2 (b) S" + tail, want: want},
		{name: "a name with a newline", text: "7 (a\nb) S" + tail, want: want},
		{name: "nothing", text: "", bad: true},
		{name: "no name", text: "7 sh S" + tail, bad: true},
		{name: "cut off", text: "7 (sh) S 1 2 3", bad: true},
		{name: "a letter for a number", text: "7 (sh) S 1 7 7 0 -1 4194560 1 2 3 4 x 22 33 44 20 0 1 0 555 8192000 77\n", bad: true},
	} {
		got, err := parseStat([]byte(c.text))
		if (err != nil) != c.bad || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	if p, err := parseStat([]byte("7 (sh) Z" + tail)); err != nil || !p.zombie {
		t.Errorf("a zombie: got %+v, %v", p, err)
	}
}

func TestParseCPUStat(t *testing.T) {
	user, sys, ok := parseCPUStat([]byte("usage_usec 5\nuser_usec 3000000\nsystem_usec 2000\nnice_usec 0\n"))
	if user != 3*time.Second || sys != 2*time.Millisecond || !ok {
		t.Errorf("got %v, %v, %v", user, sys, ok)
	}
	if _, _, ok := parseCPUStat([]byte("nr_periods 0\n")); ok {
		t.Error("a cpu.stat without user_usec was taken for one")
	}
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("1 () Z"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseStat(b)
		if err != nil && p != (process{}) {
			t.Errorf("an error and a value: %+v, %v", p, err)
		}
	})
}
