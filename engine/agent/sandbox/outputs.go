package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"joist/engine/agent/wire"
)

// readBounded reads a regular file of at most limit bytes; nil if there is none. A symbolic link or a pipe in its place
// is refused, so that a step cannot make the agent read something else or wait.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", info.Name())
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes; pass large values as files", info.Name(), limit)
	}
	return raw, nil
}

// checkOutputs checks that raw is a JSON object with exactly the declared names and returns it in one line, keys
// sorted. What the values are is checked by the engine, which knows the types.
func checkOutputs(raw []byte, declared map[string]string) (json.RawMessage, error) {
	got := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(raw)) > 0 {
		if err := json.Unmarshal(raw, &got); err != nil {
			return nil, fmt.Errorf("the step's outputs are not a JSON object: %w", err)
		}
		if got == nil {
			return nil, errors.New("the step's outputs are null, not a JSON object")
		}
	}
	var missing, undeclared []string
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if _, ok := got[name]; !ok {
			missing = append(missing, fmt.Sprintf("%s (%s)", name, declared[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := declared[name]; !ok {
			undeclared = append(undeclared, name)
		}
	}
	switch {
	case len(missing) > 0:
		return nil, fmt.Errorf("the step did not give its declared outputs %s", strings.Join(missing, ", "))
	case len(undeclared) > 0:
		return nil, fmt.Errorf("the step gave the outputs %s, which it does not declare", wire.Clip(strings.Join(undeclared, ", "), 500))
	case len(got) == 0:
		return nil, nil
	}
	out, err := json.Marshal(got)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the step's outputs: %w", err)
	}
	if len(out) > wire.MaxOutputs {
		return nil, fmt.Errorf("the step's outputs are larger than %d bytes", wire.MaxOutputs)
	}
	return out, nil
}
