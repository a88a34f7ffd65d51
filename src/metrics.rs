//! Every metric tapeway exports. No other file names one; handles are made once per lane or writer.
