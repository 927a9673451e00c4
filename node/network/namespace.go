package network

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// SameNamespace returns an error unless a guest's process 1 is still in the network
// namespace that the guest was started with. How a program that enters is confined
// follows from the mode of that start, never from where process 1 is: if process 1 had
// moved into a namespace of its own, the next program to enter the host's network would
// come in without Landlock (the kind of CVE-2020-15257).
func (n Place) SameNamespace(initPID int) error {
	ours, id, err := namespaces(initPID)
	if err != nil {
		return err
	}
	if private := id != ours; private == n.NAT && (n.Net == "" || n.Net == id) {
		return nil
	}
	return errors.New("its process 1 has left the network that the guest was started in, so that nothing can be run there as safely as in the guest; restart the guest")
}

// HasOwnNamespace reports whether a process is in another network namespace than we
// are.
func HasOwnNamespace(pid int) (bool, error) {
	ours, theirs, err := namespaces(pid)
	return theirs != ours, err
}

// namespaces returns the network namespaces that we and a process are in.
func namespaces(pid int) (ours, theirs string, err error) {
	if ours, err = namespaceID("/proc/thread-self/ns/net"); err == nil {
		theirs, err = namespaceID(fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	return ours, theirs, err
}

// namespaceID identifies a network namespace for as long as that exists.
func namespaceID(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("look at network namespace: %w", err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}
