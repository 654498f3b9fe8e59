use super::*;

const END: u8 = END_HEADERS;

/// A frame's payload after its header was followed, in pieces of so many bytes.
fn followed(kind: u8, flags: u8, payload: &[u8], piece: usize) -> Vec<u8> {
    let mut authority = Authority::default();
    let mut bytes = payload.to_vec();
    authority.begin(Head {
        length: payload.len() as u32,
        kind,
        flags,
        stream: 1,
    });
    bytes
        .chunks_mut(piece)
        .for_each(|part| authority.payload(part));
    bytes
}

fn literal(first: u8, value: &[u8]) -> Vec<u8> {
    let mut block = vec![first];
    match value.len() {
        length @ 0..127 => block.push(length as u8),
        length => block.extend([0x7f, (length - 127) as u8]), // below 255
    }
    block.extend(value);
    block
}

#[test]
fn an_encoded_authority_is_mended_wherever_the_pieces_end() {
    let path = format!("%2Ftmp%2F{}", "x".repeat(150));
    for value in ["%2Ftmp%2Fsocket", "127.0.0.1:1,127.0.0.1:2", &path] {
        for name in [&[0x41][..], &[0x01], &[0x11], b"\x40\x0a:authority"] {
            let mut block = vec![0x3f, 0x81, 0x01, 0x83, 0xff, 0x05]; // a size, two indexed
            block.extend(literal(0x44, b"/a%2Fb")); // :path
            block.extend([0x00, 1, b'x']); // a name of its own
            block.extend(literal(0, b"%")[1..].to_vec());
            let before = block.len();
            block.extend(&name[..name.len() - 1]);
            block.extend(literal(*name.last().unwrap(), value.as_bytes()));
            let end = block.len();
            block.extend(literal(0x7f, b"").into_iter().chain([]));
            for piece in 1..block.len() {
                let mended = followed(HEADERS, END, &block, piece);
                assert_eq!(mended[..before], block[..before]);
                let text = String::from_utf8_lossy(&mended[end - value.len()..end]).into_owned();
                let uri = text.parse::<http::uri::Authority>();
                assert!(uri.is_ok(), "{text}");
                assert_eq!(text.len(), value.len());
            }
        }
    }
}

#[test]
fn what_is_no_encoded_authority_stays() {
    let plain = literal(0x41, b"[::1]:8001");
    let mut huffman = literal(0x41, b"%%%");
    huffman[1] |= 0x80;
    let path = literal(0x44, b"%2F");
    let mut other = b"\x40\x0a:authoritx".to_vec();
    other.extend(&literal(0, b"%2F")[1..]);
    for block in [plain, huffman, path, other] {
        assert_eq!(followed(HEADERS, END, &block, 2), block);
    }
    let block = literal(0x41, b"%2F");
    assert_eq!(followed(0, 0, &block, 2), block, "DATA");
}

#[test]
fn padding_and_priority_are_no_part_of_the_block() {
    let mut payload = vec![3, 0, 0, 0, 0, 0]; // so much padding, and a priority
    payload.extend(literal(0x41, b"%2F"));
    payload.extend(b"A%%");
    let mended = followed(HEADERS, END | PADDED | PRIORITY, &payload, 4);
    let mut expected = payload.clone();
    expected[8] = b'-';
    assert_eq!(mended, expected);
}

#[test]
fn a_block_goes_on_in_its_next_frame() {
    let block = literal(0x41, b"a%2Fb");
    let mut authority = Authority::default();
    let (mut first, mut second) = (block[..3].to_vec(), block[3..].to_vec());
    for (kind, flags, part) in [(HEADERS, 0, &mut first), (CONTINUATION, END, &mut second)] {
        let length = part.len() as u32;
        authority.begin(Head {
            length,
            kind,
            flags,
            stream: 1,
        });
        authority.payload(part);
    }
    assert_eq!(second, b"-2Fb");
}
