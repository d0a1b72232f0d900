"""What every stage needs: errors, files, commands, progress, pages."""
