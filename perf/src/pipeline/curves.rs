//! stub
/// stub
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Curves {}
impl Curves {
    /// x
    pub fn undisturbed(&self) -> bool {
        true
    }
}
impl std::fmt::Display for Curves {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
/// x
/// # Errors
/// y
pub fn draw(_core: usize) -> Result<Curves, super::Error> {
    Ok(Curves {})
}
