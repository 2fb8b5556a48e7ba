package planview

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "joist/services/api/v1"
)

// Keep writes a plan for joist apply. It may name hosts and people, and is for its owner's eyes.
func Keep(name string, f v1.PlanFile) error {
	data, err := json.Marshal(f)
	if err == nil {
		err = keep(name, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("cannot keep the plan: %w", err)
	}
	return nil
}

// keep writes a file that nobody else may read, also if it was there and they might.
func keep(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		if err := f.Chmod(0o600); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Load reads a file that Keep wrote, in whatever form its JSON is; nil if it is something else, such as a cluster file. What cannot
// be read twice is left alone: it is a cluster file, or nothing.
func Load(name string) (*v1.PlanFile, error) {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
		return nil, nil // whoever reads cluster files says so
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil || !bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")) { // no cluster file begins so
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
		return nil, fmt.Errorf("cannot apply the plan %s: its format is %.40s, this program knows %s; plan again, and keep the plan with --out", name, p.Format, v1.PlanFileFormat)
	}
	return &p, nil
}
