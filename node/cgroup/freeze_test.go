package cgroup

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Run again with this variable, TestThawedWhenVsnodeIsKilled is a vsnode that freezes.
const freezerEnv = "VSFLEET_TEST_FREEZE"

func isFrozen(t *testing.T, c Dir) bool {
	t.Helper()
	return strings.Contains(read(t, c, "cgroup.events"), "frozen 1")
}

func TestWhileFrozen(t *testing.T) {
	c := testGuest(t)
	start(t, c, 0, sleeps)
	start(t, mkdir(t, c, "a/b"), 0, sleeps)
	mine := errors.New("mine")
	err := c.WhileFrozen(t.Context(), func() error {
		if !isFrozen(t, c) {
			t.Error("it is not frozen")
		}
		return mine
	})
	if !errors.Is(err, mine) || isFrozen(t, c) || read(t, c, "cgroup.freeze") != "0" {
		t.Errorf("error %v, frozen %v", err, isFrozen(t, c))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = c.WhileFrozen(ctx, func() error { return nil })
	if read(t, c, "cgroup.freeze") != "0" {
		t.Errorf("cancelled: error %v, and it stays frozen", err)
	}
	if err := Dir("/nowhere").WhileFrozen(t.Context(), func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cgroup that is not there: %v", err)
	}
}

func TestThawedWhenVsnodeIsKilled(t *testing.T) {
	if dir := os.Getenv(freezerEnv); dir != "" {
		must(t, Dir(dir).WhileFrozen(t.Context(), func() error {
			os.Stdout.WriteString("frozen\n")
			select {}
		}))
	}
	c := testGuest(t)
	start(t, c, 0, sleeps)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestThawedWhenVsnodeIsKilled$")
	cmd.Env = append(os.Environ(), freezerEnv+"="+string(c))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "frozen\n" || !isFrozen(t, c) {
		t.Errorf("vsnode says %q, %v", line, err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	// The shell thaws the cgroup a moment after its parent has ended: nothing says when.
	for deadline := time.Now().Add(5 * time.Second); isFrozen(t, c); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it stays frozen")
		}
	}
}
