package planview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	v1 "joist/services/api/v1"
)

// Keep writes a plan for joist apply. It may name hosts and people, and is for its owner's eyes.
func Keep(name string, f v1.PlanFile) error {
	data, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(name, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the plan: %w", err)
	}
	return nil
}

// Load reads a file that Keep wrote; nil if it is something else, such as a cluster file.
func Load(name string) (*v1.PlanFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil // whoever reads cluster files says so
	}
	defer f.Close()
	start := []byte(`{"format":"joist-plan-file/`)
	head, err := io.ReadAll(io.LimitReader(f, int64(len(start))))
	if err != nil || !bytes.Equal(head, start) {
		return nil, nil
	}
	data, err := io.ReadAll(io.MultiReader(bytes.NewReader(head), f))
	if err != nil {
		return nil, fmt.Errorf("cannot read the plan %s: %w", name, err)
	}
	var p v1.PlanFile
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("cannot read the plan %s: it is damaged: %w", name, err)
	}
	if p.Format != v1.PlanFileFormat {
		return nil, fmt.Errorf("cannot apply the plan %s: its format is %s, this program knows %s; plan again", name, p.Format, v1.PlanFileFormat)
	}
	return &p, nil
}
