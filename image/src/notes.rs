//! Notes, written one behind the other into a buffer.

/// The buffer has no room for a note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// A writer of notes. A note is begun, filled and ended:
///
/// ```text
/// +-----------+-----------+------+----------------+-------------------------------+
/// | name size | desc size | type | name, NUL, pad | description, padded to 4 bytes |
/// +-----------+-----------+------+----------------+-------------------------------+
/// ```
pub struct NoteWriter<'b> {
    buffer: &'b mut [u8],
    length: usize,
    /// Where the note that is open begins,
    header: usize,
    /// and where its description does.
    description: usize,
}

impl<'b> NoteWriter<'b> {
    /// Writes into `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, length: 0, header: 0, description: 0 }
    }

    /// Begins a note.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn begin(&mut self, name: &str, kind: u32) -> Result<(), Full> {
        self.header = self.length;
        self.push(bytemuck::bytes_of(&[name.len() as u32 + 1, 0, kind]))?;
        self.push(name.as_bytes())?;
        self.push(&[0])?;
        self.pad(4)?;
        self.description = self.length;
        Ok(())
    }

    /// Appends bytes to the note that is open.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.length + bytes.len();
        self.buffer.get_mut(self.length..end).ok_or(Full)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    /// Appends a record and the bytes that belong to it, padded to a multiple of 8.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn push_record<T: bytemuck::Pod>(&mut self, record: &T, tail: &[u8]) -> Result<(), Full> {
        self.push(bytemuck::bytes_of(record))?;
        self.push(tail)?;
        self.align()
    }

    /// Pads what the note that is open holds to a multiple of 8.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn align(&mut self) -> Result<(), Full> {
        let ragged = (self.length - self.description) % 8;
        self.push(&[0; 8][..(8 - ragged) % 8])
    }

    /// Puts `bytes` in the place of what the note that is open holds at `position`.
    pub fn amend(&mut self, position: usize, bytes: &[u8]) {
        let start = self.description + position;
        self.buffer[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Takes back all that the note that is open holds from `position` on.
    pub fn take_back(&mut self, position: usize) {
        self.length = self.description + position;
    }

    /// The room that is left, to be filled in and then [`advance`](Self::advance)d over.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.length..]
    }

    /// Takes the first `length` bytes of the room as appended.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn advance(&mut self, length: usize) -> Result<(), Full> {
        let end = self.length + length;
        if end > self.buffer.len() {
            return Err(Full);
        }
        self.length = end;
        Ok(())
    }

    /// How many bytes there are, notes that are ended among them.
    pub fn position(&self) -> usize {
        self.length
    }

    /// What has been written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// What the note that is open holds so far.
    pub fn open_description(&self) -> &[u8] {
        &self.buffer[self.description..self.length]
    }

    /// Ends the note that is open and returns its description, which may still be changed.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn end(&mut self) -> Result<&mut [u8], Full> {
        let description = self.description..self.length;
        let size = (description.len() as u32).to_le_bytes();
        self.buffer[self.header + 4..self.header + 8].copy_from_slice(&size);
        self.pad(4)?;
        Ok(&mut self.buffer[description])
    }

    /// A note with nothing but `parts`, one behind the other.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn note(&mut self, name: &str, kind: u32, parts: &[&[u8]]) -> Result<(), Full> {
        self.begin(name, kind)?;
        for part in parts {
            self.push(part)?;
        }
        self.end().map(drop)
    }

    /// Ends the note that is open and gives up the writer for its description.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn finish(mut self) -> Result<&'b mut [u8], Full> {
        let description = self.description..self.length;
        self.end()?;
        Ok(&mut self.buffer[description])
    }

    /// All that has been written.
    pub fn into_bytes(self) -> &'b mut [u8] {
        &mut self.buffer[..self.length]
    }

    fn pad(&mut self, alignment: usize) -> Result<(), Full> {
        let padding = self.length.next_multiple_of(alignment) - self.length;
        self.push(&[0; 8][..padding])
    }
}
