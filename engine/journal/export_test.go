package journal

// DamageSnapshot changes one byte of a stored snapshot.
func (m *Memory) DamageSnapshot(journal string) { m.journals[journal].snapshot.Data[0] ^= 1 }

// DecodeBody is the decoder behind the checksum, which a fuzzer would not get past.
func DecodeBody(body []byte) ([]Record, error) { return decodeBody(body) }
