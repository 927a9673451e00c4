package nat

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// record is what the last Sync left, in the text of the lock's file: what it
// brought about, and what conntrack has been cleared for. While nobody has
// changed a packet filter of the host since, it says what the tables hold, and
// reading them, which takes longer the more guests there are, is spared.
type record struct {
	Layout     string `json:"layout"`     // its version
	Generation uint32 `json:"generation"` // of the host's packet filters; 0: not known
	Want       Want   `json:"want"`
}

// readRecord takes what it cannot read (nothing yet, what a kill left, another
// vsnode's) for an empty one.
func readRecord() (record, error) {
	b, err := os.ReadFile(lockPath)
	if err != nil {
		return record{}, fmt.Errorf("read what private networks there were: %w", err)
	}
	var r record
	if json.Unmarshal(b, &r) != nil {
		return record{}, nil
	}
	return r, nil
}

// write is not beside and renamed, for this is the file that is locked.
func (r record) write() error {
	b, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(lockPath, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write what private networks there are: %w", err)
	}
	return nil
}

// generation is a number that each change of a packet filter in this network
// namespace, whoever makes it, counts up by one.
func generation() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err == nil && len(msgs) != 1 {
		err = fmt.Errorf("%d answers", len(msgs))
	}
	if err == nil && len(msgs[0]) < nl.SizeofNfgenmsg {
		err = errors.New("a short answer")
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of packet filters: %w", err)
	}
	for kind, value := range attributes(msgs[0][nl.SizeofNfgenmsg:]) {
		if kind == unix.NFTA_GEN_ID && len(value) == 4 {
			return binary.BigEndian.Uint32(value), nil
		}
	}
	return 0, errors.New("ask for the generation of packet filters: no number in the answer")
}
